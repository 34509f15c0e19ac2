// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/host"
)

// Machine is the machine that a shim runs on: the kernel in the product ([Exec]), a
// model of one in the simulation. Only the shim's one goroutine calls a Machine.
type Machine interface {
	// Now returns the time since boot.
	Now() time.Duration
	// Leapt reports whether the wall clock leapt since the last Settle.
	Leapt() bool
	Settle()

	// Next waits for the next input. While a child is starting, Next returns only
	// Start, Beat and Rang. The machine holds all other inputs back until the child
	// has started.
	Next(starting bool) Input
	// Wake sets the alarm: Next returns Rang at the instant, at once if that has passed.
	// The call replaces the earlier instant.
	Wake(at time.Duration)
	// Say writes a line for people, into the container's log. Say never waits for that
	// log: a container runtime that does not read the log must not stop the watchdog.
	Say(line string)

	// Start starts a command. The exec may hang, so the outcome comes later, in the
	// input [Start].
	Start(c *Command)
	// Reap reaps one process that has ended. If there is none, Reap returns a process
	// id of 0, and reports whether the shim has no descendants left.
	Reap() (pid int, status unix.WaitStatus, none bool)
	// Signal sends a signal to a process, or to a process group if pid is negative.
	Signal(pid int, sig syscall.Signal) error
	// Descendants returns all descendants of the shim, parents first.
	Descendants() ([]host.Process, error)
	// Find returns the process with that process id, if there is one.
	Find(pid int) (host.Process, bool)
	// Expects reports whether the process blocks, ignores or catches the signal. If the
	// machine cannot know, Expects returns true.
	Expects(pid int, sig syscall.Signal) bool
	// TakeTerminal takes back the terminal that a child had.
	TakeTerminal()
}

// Command is a command that the machine starts: a child, or a command beside the
// child.
type Command struct {
	// Path is the executable; empty to look for Argv[0] in PATH.
	Path      string
	Argv, Env []string
	// Child reports that the command is the child, which gets the shim's own standard
	// files and the terminal. Any other command has no input, and the machine keeps the
	// beginning of its output.
	Child bool
}

// Output is the output of a command beside the child.
type Output interface {
	// End tells the machine that the shim reaped the command's process. The machine
	// answers with a Result.
	End()
}

// Input is an input of the shim: a Tick, a Start, a Result, a Connection, or a
// syscall.Signal or gate.Order for the shim.
type Input any

// Tick is an input without data.
type Tick int

const (
	// Ended reports that a process has ended, and may be reaped.
	Ended Tick = iota
	// Rang reports that the instant of Wake has come. Rang may come late, or for an
	// instant that a later Wake replaced. No Rang is ever missing.
	Rang
	// Beat comes once in each period of [gate.BeatEvery].
	Beat
	// ClockSet reports that the wall clock was set. A machine may fail to report this.
	ClockSet
)

// Start reports that a command was started, or could not be started.
type Start struct {
	Command *Command
	PID     int
	Output  Output // nil for a child
	Err     error
}

// Result contains the output of a command beside the child.
type Result struct {
	Command *Command
	Output  []byte
}

// Connection reports a new connection to the agent's end. Without a Conn, the input
// reports the end of a connection. After a new connection, no order of an old
// connection comes.
type Connection struct{ Conn Conn }

// Conn is the connection to the agent's end.
type Conn interface {
	// Send never waits for the agent's end. The first message carries the shim's pidfd.
	Send(message []byte) error
}

// Identity names a shim to the agent's end.
type Identity struct {
	Shim   gate.ShimID
	BootID string
	// PID1 reports that the shim is the first process of its PID namespace.
	PID1 bool
}
