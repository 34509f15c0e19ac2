// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/linux"
)

// Machine is the machine on which a shim runs: the kernel in the product ([Exec]), or the
// simulation's model of a kernel. Only the shim's one goroutine calls the methods.
type Machine interface {
	// Now returns the time since boot.
	Now() time.Duration
	// Leapt reports whether the wall clock has leapt since the last call of Rebase.
	Leapt() bool
	Rebase()

	// Next waits for the next input. While a child is starting, Next returns only Start, Beat
	// and Rang. All other inputs wait until the child has started.
	Next(starting bool) Input
	// Wake sets the alarm: Next returns Rang at the given instant, or immediately if that instant
	// has passed. Each call replaces the instant of the call before.
	Wake(at time.Duration)
	// Say writes a line for people into the container's log. Say never waits for the log,
	// because a container runtime that does not read the log must not stop the watchdog.
	Say(line string)

	// Start starts a command. The exec may hang, so the outcome comes later, as the input
	// [Start].
	Start(c *Command)
	// Reap reaps one process that has ended. If no process has ended, the process id is 0. The
	// result "none" reports that the shim has no descendant left.
	Reap() (pid int, status unix.WaitStatus, none bool)
	// Signal sends a signal to a process, or to a process group if pid is negative.
	Signal(pid int, sig syscall.Signal) error
	// Descendants returns all descendants of the shim, parents first.
	Descendants() ([]linux.Process, error)
	// Find returns the process with the given process id. If no such process exists, the second
	// result is false.
	Find(pid int) (linux.Process, bool)
	// Expects reports whether the process blocks, ignores or catches the signal. If the machine
	// cannot find that out, the result is true.
	Expects(pid int, sig syscall.Signal) bool
	// TakeTerminal takes the terminal back after the end of the child that had the terminal.
	TakeTerminal()
}

// Command is a command that the machine starts: a child, or a command beside the
// child.
type Command struct {
	// Path is the executable. If Path is empty, the machine searches PATH for Argv[0].
	Path      string
	Argv, Env []string
	// Child reports that the command is the child. A child gets the shim's own standard files
	// and the terminal. Any other command has no input, and the machine keeps only the
	// beginning of its output.
	Child bool
}

// Output is the output of a command that is not the child.
type Output interface {
	// End reports to the machine that the shim has reaped the command's process. After that,
	// [Machine.Next] returns a [Result].
	End()
}

// Input is an input of the shim: a Tick, a Start, a Result, a Connection, a syscall.Signal or a
// gate.Order.
type Input any

// Tick is an input without data.
type Tick int

const (
	// Ended reports that a process has ended, and may be reaped.
	Ended Tick = iota
	// Rang reports that the instant set by [Machine.Wake] has come. A Rang may be late, or may
	// belong to an earlier setting, but no Rang is ever lost.
	Rang
	// Beat comes once in each period of [gate.BeatEvery].
	Beat
	// ClockSet reports that somebody has set the wall clock. Some machines never report this.
	ClockSet
)

// Start reports that a command has been started, or could not be started.
type Start struct {
	Command *Command
	PID     int
	Output  Output // nil for the child
	Err     error
}

// Result contains the output of a command that is not the child.
type Result struct {
	Command *Command
	Output  []byte
}

// Connection reports a new connection to the server. If Conn is nil, Connection reports the end
// of the connection. After a new connection, no order of an old connection comes.
type Connection struct{ Conn Conn }

// Conn is the connection to the server.
type Conn interface {
	// Send sends a message without waiting for the server. The first message carries the shim's
	// pidfd.
	Send(message []byte) error
}

// Identity identifies a shim to the server.
type Identity struct {
	Shim   gate.ShimID
	BootID string
	// PID1 reports that the shim is the first process of its PID namespace.
	PID1 bool
}
