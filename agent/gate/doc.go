// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package gate is both ends of the grant: the agent's end ([Server]), and the
// shim ([Exec]), which is the parent of the application in its container and
// PID 1 there.
//
// # What it guarantees
//
// A child runs only under a grant, and is dead at the grant's deadline, whether
// or not the agent lives, is frozen or is cut off: the shim is the watchdog.
// It kills everything that descends from it until wait answers that nothing is
// left, and where it cannot, it exits: the kernel then kills every process of
// the PID namespace that it was PID 1 of.
//
// A shim is reported dead, or its hold over, only on proof: its own word that
// it reaped everything ([Waiting] or [Ended], naming the hold), or its pidfd.
// The end of a connection proves nothing, and nothing on disk is a grant; the
// notes in granted/ only say what is not yet proven.
//
// # Clock
//
// Every instant is CLOCK_BOOTTIME, which goes on while the machine is
// suspended and is the same for all containers of one kernel. A boot id goes
// with each deadline; one of another boot is refused. The watchdog's timer is a
// timerfd on that clock, because timers of the Go runtime stop in suspend. The wall
// clock decides nothing: that it leapt is a reason to ask.
//
// # What it does not guarantee
//
//   - A machine, container or shim that is frozen past the deadline kills as
//     soon as it runs again, not before.
//   - A machine that is paused does not see its clocks go on. Its shims freeze
//     the child once the wall clock is set right ([Leaps]), until the agent has
//     renewed. Where nobody sets that clock, the agent's next renewal or its watch
//     tells of the loss.
//   - A process in uninterruptible sleep is not dead, and is not said to be.
//   - What entered the container from outside (kubectl exec) is not the child:
//     it is left alone until it is orphaned, which makes it the shim's.
//   - With a PID namespace that the shim is not PID 1 of, its pidfd proves
//     nothing about its descendants: such a shim is reported dead only if its
//     last word was that nothing lives.
//   - The application shares the socket with its shim and could lie about
//     itself. It cannot lie about other containers' processes where the kernel
//     names the peer (SO_PEERPIDFD, Linux 6.5).
//   - Dispositions that the runtime had set to "ignore" before the shim started
//     are passed on for SIGHUP and SIGINT alone; the Go runtime replaces others
//     before it can be asked. runc, itself in Go, does the same.
package gate
