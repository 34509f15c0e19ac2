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

// Machine is what a shim runs on: the kernel in the product ([Exec]), a model of one in
// the simulation. Only the shim's one goroutine calls a Machine.
type Machine interface {
	Clock
	Processes
	// Next waits for the next input. While a child is being started, the machine holds
	// all inputs back but Started, Beat and Rang.
	Next(starting bool) Input
	// Wake asks for Rang at the instant, at once if that has passed, and takes back
	// what was asked before.
	Wake(at time.Duration)
	// Say writes a line for people, into the container's log. It never waits for that
	// log: a runtime that does not read it must not stop the watchdog.
	Say(line string)
}

// Clock is the time since boot, and what the wall clock shows beside that.
type Clock interface {
	Now() time.Duration
	// Leapt reports whether the wall clock leapt since the last Settle.
	Leapt() bool
	Settle()
}

// Processes are the shim's child, and all that descends from the shim.
type Processes interface {
	// Start starts a command. Its exec may hang; Started tells of the outcome.
	Start(c *Command)
	// Reap takes one process that has ended. Without one it returns a process id of
	// 0, and tells whether nothing is left that descends from the shim.
	Reap() (pid int, status unix.WaitStatus, none bool)
	// Signal sends a signal to a process, or to a process group if pid is negative.
	Signal(pid int, sig syscall.Signal) error
	// Descendants returns all that descends from the shim, parents first.
	Descendants() ([]host.Process, error)
	// Find returns the process of that number, if there is one.
	Find(pid int) (host.Process, bool)
	// Expects tells whether the process has decided what becomes of the signal. It is
	// true where that cannot be known.
	Expects(pid int, sig syscall.Signal) bool
	// TakeTerminal takes back the terminal that a child had.
	TakeTerminal()
}

// Command is what the machine starts: a child, or a command beside the child.
type Command struct {
	// Path is the executable; empty to look for Argv[0] in PATH.
	Path      string
	Argv, Env []string
	// Child gets the shim's own standard files and the terminal. Any other command has
	// no input, and the machine keeps the beginning of its output.
	Child bool
}

// Output is that of a command beside the child.
type Output interface {
	// End tells the machine that the command's process was reaped. Finished follows.
	End()
}

// Input is what Next returns: a syscall.Signal or a gate.Order that came in, or one of
// the types below.
type Input any

type (
	// Ended tells that a process has ended, and may be reaped.
	Ended struct{}
	// Started tells that a command was started, or could not be.
	Started struct {
		Command *Command
		PID     int
		Output  Output // nil for a child
		Err     error
	}
	// Finished brings the output of a command beside the child.
	Finished struct {
		Command *Command
		Output  []byte
	}
	// Rang tells that an instant has come. It may be late, or left over from one that
	// was taken back; it is never missing.
	Rang struct{}
	// Beat comes each gate.BeatEvery.
	Beat struct{}
	// ClockSet tells that the wall clock was set. A machine may miss that.
	ClockSet struct{}
	// Connected and Disconnected tell of the connection to the agent's end. Inputs of
	// an old connection never come after Connected.
	Connected    struct{ Conn Conn }
	Disconnected struct{}
)

// Conn is the connection to the agent's end.
type Conn interface {
	// Send never waits for the agent's end. The first message takes the shim's pidfd
	// with it.
	Send(message []byte) error
}

// Identity names a shim to the agent's end.
type Identity struct {
	Shim   gate.ShimID
	BootID string
	// PID1: the shim is the first process of its PID namespace.
	PID1 bool
}
