// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"fmt"
	"time"
)

// ShimID names one shim process: a random string that the shim draws at its start.
type ShimID string

// Grant is the permission to run the child. A grant exists only on the live
// connection between a shim and an agent process; nothing on disk is a grant.
// A further Grant of the same Hold makes the deadline later.
type Grant struct {
	// Hold names the hold that permits this grant.
	Hold string `json:"hold"`
	// Slots are the slots of the hold with their fencing tokens, in the order of
	// acquisition.
	Slots []SlotToken `json:"slots"`
	// Deadline is the CLOCK_BOOTTIME instant (since boot) at which the child
	// must be dead; [Unbounded] for a child that no deadline stops.
	Deadline time.Duration `json:"deadline"`
	// BootID is the boot that Deadline counts from.
	BootID string `json:"bootID"`
	// Drain and Kill are the parts of the time budget that end at Deadline. At
	// Deadline−Kill−Drain the child gets its stop signal. At Deadline−Kill all
	// descendants of the shim get SIGKILL.
	Drain time.Duration `json:"drain"`
	Kill  time.Duration `json:"kill"`
	// StartBy is the CLOCK_BOOTTIME instant from which no child may be started under this grant;
	// zero means that only the Deadline counts.
	StartBy time.Duration `json:"startBy,omitempty"`
	// PodIP is the pod's address, to which the hooks connect by default.
	PodIP string `json:"podIP,omitempty"`
	// Leap is the Leap of the Report that this grant answers; zero means none. Every
	// renewal from which the deadline counts was sent after this Report had arrived.
	Leap int `json:"leap,omitempty"`
	// Delay bounds the time for which the shim holds back the kubelet's stop signal. In
	// that time the pod can leave its Services before the child stops. A later grant can
	// lengthen this time. A grant without a delay ends the wait.
	Delay time.Duration `json:"delay,omitempty"`
}

// Unbounded is the deadline of a child that holds no slot for life. Only a shim whose own
// arguments permit that starts a child under such a grant.
const Unbounded = time.Duration(1<<63 - 1)

// farthest bounds the time until the deadline of any other grant. No Lease lasts longer.
const farthest = time.Hour

// Bounded reports whether a Lease can last until the deadline.
func (g *Grant) Bounded(now time.Duration) bool { return g.Deadline-now <= farthest }

// Heard bounds the time for which a shim waits for the agent's answer to a report. An
// agent that is not starved answers within milliseconds, even if it asks the API server
// first.
const Heard = 500 * time.Millisecond

// DrainAt returns the instant at which the child gets its stop signal.
func (g *Grant) DrainAt() time.Duration { return g.Deadline - g.Kill - g.Drain }

// KillAt returns the instant at which all descendants of the shim get SIGKILL.
func (g *Grant) KillAt() time.Duration { return g.Deadline - g.Kill }

// LastResort returns the instant at which the shim ends itself. Two fifths of Kill
// are left to the kernel for the processes that die with PID 1.
func (g *Grant) LastResort() time.Duration { return g.Deadline - g.Kill*2/5 }

// Check refuses a grant without a hold or a boot id, and a grant whose instants could
// overflow.
func (g *Grant) Check() error {
	switch {
	case g.Hold == "" || g.BootID == "":
		return fmt.Errorf("%w: grant without hold or boot id", ErrMessage)
	case g.Deadline <= 0 || g.Drain < 0 || g.Kill < 0 || g.Drain > Longest || g.Kill > Longest:
		return fmt.Errorf("%w: grant until %v, drain %v, kill %v", ErrMessage, g.Deadline, g.Drain, g.Kill)
	case g.StartBy < 0:
		return fmt.Errorf("%w: grant with a start by %v", ErrMessage, g.StartBy)
	case g.Delay < 0 || g.Delay > Longest:
		return fmt.Errorf("%w: grant with a delay of %v", ErrMessage, g.Delay)
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
	// Waiting means that the gate is closed. The shim has no child, and waits for a
	// grant.
	Waiting Phase = "waiting"
	// Running means that the child lives.
	Running Phase = "running"
	// Draining means that the child was told to stop, and may still live.
	Draining Phase = "draining"
	// Ended means that the container is about to end. The child and all its descendants
	// are dead and reaped, and the shim wants no grant.
	Ended Phase = "ended"
)

// Report is all that the desk knows of one shim. Each change makes a new, complete
// Report, so the reader keeps only the last one of each shim.
type Report struct {
	Shim      ShimID
	Container string
	Phase     Phase
	// Hold is the hold of the shim's child while Phase is Running or Draining.
	// Otherwise Hold is the last hold that is over for this shim. Nothing lives under
	// that hold, and the shim starts nothing under it any more, even if a grant is
	// still on its way. So the hold of a grant to a Waiting shim is over only once the
	// shim names that hold here. A Drain makes the shim name the hold. Hold is empty
	// before the first hold.
	Hold string
	// Slots are the slots of the grant under which the child runs. A new agent process
	// resumes the hold from them.
	Slots []SlotToken
	// Began is the CLOCK_BOOTTIME instant at which the shim started. Of a container's
	// shims, the one that started last is the current shim.
	Began time.Duration
	// Since is the CLOCK_BOOTTIME instant at which Phase began.
	Since time.Duration
	// Starting reports that the child's postStart hook has not ended. Until then no
	// probe counts.
	Starting bool
	// Stopping reports that the kubelet has sent a stop signal. The shim holds that
	// signal back, or has held it back, for the Delay of the grant.
	Stopping bool
	// PreStop reports that the preStop hook runs, so the child has no stop signal yet.
	PreStop bool
	// Trouble is the last failure of this shim.
	Trouble Trouble
	// Leap is the number of the last leap of the wall clock, until a Grant answers that
	// leap. Otherwise Leap is zero. The machine may have been paused, so the child stays
	// frozen until the answer.
	Leap int
	// Completed reports that the child ended with exit code 0, and that nothing had asked
	// the child to stop. A program that is told to stop often ends with 0 in the middle of
	// its work.
	Completed bool
	// Failed reports that the child ended with another exit code, or by a signal, and that
	// nothing had asked the child to stop.
	Failed bool
	// Connected reports that the connection is up, so that grants and drains reach the
	// shim.
	Connected bool
	// Dead reports that the shim's pidfd became readable. The shim was PID 1 of its
	// namespace, so everything in the namespace is dead. In tests the shim need not be
	// PID 1. Then Dead also means that its last message proved that nothing lives.
	// Phase and Hold come from the shim's last message. No Report follows this one.
	Dead bool
	// Silent reports that heartbeats stopped although the connection is up. The shim is
	// frozen or starved.
	Silent bool
	// Unproven is the hold of a grant to another shim of the container, while that shim
	// is not proven dead. If the note of the grant cannot be read, Unproven is
	// Unreadable. A grant under another hold needs no such proof, because the agent
	// acquired that hold by the rules of package lease.
	Unproven string
}

// Unreadable stands for the hold in a note that cannot be read. Such a note may mean
// any hold that an earlier agent process granted.
const Unreadable = "unreadable"

// Trouble is a failure that the agent reports to people by an Event on the pod.
type Trouble struct {
	// Serial is the number of the failure. Each shim counts its failures from one; zero
	// means that there is none.
	Serial  int    `json:"serial"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// Reasons of Trouble. The reasons of hooks have the names that the kubelet gives them.
const (
	ReasonPostStart = "FailedPostStartHook"
	ReasonPreStop   = "FailedPreStopHook"
	// ReasonNotPermitted names a signal that the kernel does not let the shim send.
	ReasonNotPermitted = "SignalNotPermitted"
)

// Result is the outcome of a command that was run beside the child.
type Result struct {
	// Code is the command's exit code, 128+n after a signal.
	Code int
	// Output is the beginning of the command's standard output and standard error.
	Output []byte
	// TimedOut reports that the shim killed the command because its time was up.
	TimedOut bool
}

// LockName names a file in the shared directory. The one agent process that acts
// for the pod holds the flock on this file.
const LockName = "agent.lock"
