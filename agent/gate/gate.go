// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"fmt"
	"time"
)

// ShimID names one shim process: a random number that the shim draws at its start.
type ShimID string

// Grant is the permission to run the child. A grant exists only on the live
// connection between a shim and an agent process; nothing on disk is a grant.
// A later Grant of the same Hold moves the deadline forward.
type Grant struct {
	// Hold names the hold of the slots that this grant is made from.
	Hold string `json:"hold"`
	// Slots and their fencing tokens, in the order of acquisition.
	Slots []SlotToken `json:"slots"`
	// Deadline is the CLOCK_BOOTTIME instant (since boot) at which the child
	// must be dead.
	Deadline time.Duration `json:"deadline"`
	// BootID is the boot that Deadline counts from.
	BootID string `json:"bootID"`
	// Drain and Kill are the parts of the time budget that end at Deadline. At
	// Deadline−Kill−Drain the child gets its stop signal. At Deadline−Kill everything
	// gets SIGKILL.
	Drain time.Duration `json:"drain"`
	Kill  time.Duration `json:"kill"`
	// PodIP is the pod's address, which hooks ask by default.
	PodIP string `json:"podIP,omitempty"`
	// Leap is that of a Report which this grant answers: every renewal behind
	// the deadline was sent after that Report had come. Zero answers none.
	Leap int `json:"leap,omitempty"`
}

// DrainAt returns the instant at which the child gets its stop signal.
func (g *Grant) DrainAt() time.Duration { return g.Deadline - g.Kill - g.Drain }

// KillAt returns the instant at which everything gets SIGKILL.
func (g *Grant) KillAt() time.Duration { return g.Deadline - g.Kill }

// LastResort returns the instant at which the shim ends itself. Two fifths of Kill
// are left to the kernel for the processes that die with PID 1.
func (g *Grant) LastResort() time.Duration { return g.Deadline - g.Kill*2/5 }

// Check refuses a grant that names nothing, or whose instants could overflow.
func (g *Grant) Check() error {
	switch {
	case g.Hold == "" || g.BootID == "":
		return fmt.Errorf("%w: grant without hold or boot id", ErrMessage)
	case g.Deadline <= 0 || g.Drain < 0 || g.Kill < 0 || g.Drain > Longest || g.Kill > Longest:
		return fmt.Errorf("%w: grant until %v, drain %v, kill %v", ErrMessage, g.Deadline, g.Drain, g.Kill)
	}
	return nil
}

// SlotToken is one slot (a Lease's name) and the fencing token of its hold.
type SlotToken struct {
	Slot  string `json:"slot"`
	Token string `json:"token"`
}

// Phase is the part of a shim's work that it does now: waiting, running, draining or
// ended.
type Phase string

const (
	// Waiting: no child, the gate is closed; the shim would like a grant.
	Waiting Phase = "waiting"
	// Running: the child lives.
	Running Phase = "running"
	// Draining: the child has been told to stop and lives (or may live) on.
	Draining Phase = "draining"
	// Ended: the child came to its own end, everything that descended from the child
	// is dead and reaped, and the container is about to end. No grant wanted.
	Ended Phase = "ended"
)

// Report is all that the agent's end knows of one shim. Each change of
// anything in it makes a new, whole Report: the reader keeps only the last one
// per shim.
type Report struct {
	Shim      ShimID
	Container string
	Phase     Phase
	// Hold is the hold whose child the shim has (Running, Draining). For
	// Waiting and Ended that is the last hold that the shim knows to be over.
	// Nothing lives under that hold, and this shim starts nothing under it any more,
	// even if a grant is still on its way. A hold that was granted to a
	// Waiting shim is therefore over only when the shim names it here, which a
	// Drain brings about. Empty if there never was one.
	Hold string
	// Slots are those of the grant under which the child runs: what a new
	// agent process resumes a hold from.
	Slots []SlotToken
	// Began is the CLOCK_BOOTTIME instant at which the shim started: of two shims of
	// one container the later one is the container's current one.
	Began time.Duration
	// Since is the CLOCK_BOOTTIME instant at which Phase began.
	Since time.Duration
	// Starting: the child's postStart hook is not over. Until then no probe
	// counts.
	Starting bool
	// Trouble is the last of this shim.
	Trouble Trouble
	// Leap numbers the last leap of the wall clock, for as long as no Grant has
	// answered that; zero if none is to be answered. The machine may have been
	// paused: until then the child stands still.
	Leap int
	// Completed: the child came to its own end with exit code 0.
	Completed bool
	// Connected: the connection is up; grants and drains reach the shim.
	Connected bool
	// Dead: the shim's pidfd became readable. The shim was PID 1 of its namespace, so
	// everything in it is dead; or it was not, and had nothing alive (tests).
	// The last Report of a shim; Phase and Hold are what the shim said last.
	Dead bool
	// Silent: the connection is up but heartbeats stopped; the shim is frozen
	// or starved.
	Silent bool
	// Unproven is a hold that another shim of the container was granted, while that shim
	// is not proven dead. Unproven names that hold, or is Unreadable. A grant made under
	// another hold needs no such proof, because that hold was acquired by everybody's
	// rules.
	Unproven string
}

// Unreadable stands for the hold in a note that cannot be read. Any hold that was granted
// before this agent process began may be meant.
const Unreadable = "unreadable"

// Trouble is a failure that the agent reports to people by an Event on the pod.
type Trouble struct {
	// Serial tells two of one shim apart; zero if there was none.
	Serial  int    `json:"serial"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// Reasons of Trouble. Those of hooks are the kubelet's own names.
const (
	ReasonPostStart = "FailedPostStartHook"
	ReasonPreStop   = "FailedPreStopHook"
	// ReasonNotPermitted names a signal that the kernel does not let the shim send.
	ReasonNotPermitted = "SignalNotPermitted"
)

// Result is the outcome of a command that was run beside the child.
type Result struct {
	// Code is its exit code, 128+n after a signal.
	Code int
	// Output is the beginning of the command's output, on both its outputs.
	Output []byte
	// TimedOut: the shim killed the command because its time was up.
	TimedOut bool
}

// LockName is the file in the shared directory that is locked by the one agent
// process that acts for the pod.
const LockName = "agent.lock"
