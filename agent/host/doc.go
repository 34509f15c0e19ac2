// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package host has the calls of the agent and the shim to the kernel beneath them: clocks and
// timers, flocks, sockets, processes and signals. The package knows no slot, no grant and no
// child. The packages agent/gate, agent/shim and agent/standin make all decisions about those.
//
// # The guarantee
//
// A function returns the kernel's answer. Only the functions whose comments say so wait for
// another process ([Lock], [Flock], [Fork], [AwaitDeath]).
//
// # Clocks
//
// [Now] is CLOCK_BOOTTIME, and an [Alarm] rings by that clock: both go on in suspend,
// where the timers of the Go runtime stop. [Leaps] only compares the wall clock with
// that clock.
//
// # What is not guaranteed
//
//   - A machine that was paused cannot see that its clocks stood still. [Leaps] notices
//     only that the wall clock is corrected afterwards, if anybody corrects it.
//   - A process id names a process only until that process is reaped. So only the
//     process that reaps may call [Signal].
package host
