// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package shim is the container's end of the contract in agent/gate. [Exec] is the
// parent of the application, PID 1 of its container, and the watchdog of the grant.
//
// # The guarantee
//
// A child runs only under a grant, and is dead at the grant's deadline, even if the agent is
// dead, frozen or cut off. Early enough before the deadline, the shim sends SIGKILL to all its
// descendants, and repeats that until the kernel answers that none is left. If the shim cannot
// kill them all, the shim exits. The shim is PID 1 of a PID namespace, so the kernel then kills
// every process of that namespace.
//
// The shim reports that a hold is over ([gate.Waiting] or [gate.Ended], with that hold) only
// when no descendant lives under that hold. After that the shim starts no child under that hold.
//
// # Clocks
//
// Every instant is CLOCK_BOOTTIME, which goes on while the machine is suspended. All containers
// of one kernel read the same clock. The shim refuses a grant of another boot. The watchdog's
// timer is a timerfd on that clock, because timers of the Go runtime stop in suspend. The wall
// clock decides no deadline. But a leap of the wall clock may be a time server's correction
// after a pause of the whole machine. So the shim then freezes the child until the agent has
// renewed.
//
// # What is not guaranteed
//
//   - If the machine, the container or the shim is frozen past the deadline, the
//     shim kills the child only when the shim runs again.
//   - While a machine is paused, all its clocks stand still. Its shims freeze the
//     child once the wall clock is set right (linux.Leaps), until the agent has
//     renewed. If nobody sets that clock, only the agent's next renewal, or the
//     agent's watch of the Lease, shows that the slot is lost.
//   - A process in uninterruptible sleep is not dead, and the shim does not report
//     its death.
//   - In a container that has neither the capability KILL nor SETUID, a child of
//     another user gets no signal. At the deadline the shim ends, and the kernel
//     kills the child.
//   - A process that entered the container from outside (kubectl exec) has a parent outside.
//     Until that parent has ended, the process is no descendant of the shim, so the shim does
//     not stop the process.
//   - Of the signals that the container runtime has set to "ignore", the child
//     ignores only SIGHUP and SIGINT. The Go runtime replaces the setting of the
//     other signals before the shim can read that setting. The container runtime
//     runc is also a Go program, and does the same.
//
// The shim is a program of its own, because each gated pod has a copy in a volume, whose pages no
// two containers share; HTTP and TLS would double it. Rejected: an argument by which the webhook
// names the program, which two versions of the webhook would fight over; both programs in each
// volume; hooks by the agent's process, which fail while the agent restarts.
package shim
