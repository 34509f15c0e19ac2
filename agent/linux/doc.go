// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package linux has the calls of the agent and the shim to the kernel beneath them: clocks and
// timers, flocks, sockets, processes and signals. It knows no slot, no grant and no child. A function
// returns the kernel's answer, and waits for another process only if its comment says so ([Lock], [Flock],
// [Fork], [AwaitDeath]).
//
// [Now] is CLOCK_BOOTTIME, and an [Alarm] rings by that clock: both go on in suspend, where the timers of
// the Go runtime stop. [Leaps] only compares the wall clock with that clock: a machine that was paused
// cannot see that its clocks stood still, but only that the wall clock is corrected afterwards, if anybody
// corrects it. A process id names a process only until that process is reaped. So only the process that
// reaps may call [Signal].
package linux
