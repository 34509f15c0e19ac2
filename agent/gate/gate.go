// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// ShimID identifies one shim process, by a random string that the shim draws at its start.
type ShimID string

// Grant is the permission to run the child. A grant exists only on the live connection between
// a shim and an agent process; nothing on disk is a grant. A further Grant of the same Hold
// moves the deadline to a later instant.
type Grant struct {
	// Hold names the hold under which the child may run.
	Hold string `json:"hold"`
	// Slots are the slots of the hold with their fencing tokens, in the order of
	// acquisition.
	Slots Slots `json:"slots"`
	// Deadline is the CLOCK_BOOTTIME instant (since boot) by which the child must be dead;
	// [Unbounded] for a child without a deadline.
	Deadline time.Duration `json:"deadline"`
	// BootID is the id of the boot from which Deadline counts.
	BootID string `json:"bootID"`
	// Drain and Kill are the last two parts of the time budget before Deadline. At
	// Deadline−Kill−Drain the child gets its stop signal. At Deadline−Kill all
	// descendants of the shim get SIGKILL.
	Drain time.Duration `json:"drain"`
	Kill  time.Duration `json:"kill"`
	// StartBy is the CLOCK_BOOTTIME instant from which no child may be started under this
	// grant; zero means that only the Deadline counts.
	StartBy time.Duration `json:"startBy,omitempty"`
	// PodIP is the pod's address, to which the hooks connect by default.
	PodIP string `json:"podIP,omitempty"`
	// Leap is the number of the leap that this grant answers, as in Report.Leap; zero if the
	// grant answers no leap. If the grant answers a leap, the deadline counts only from renewals
	// that the agent sent after the Report of this leap had arrived.
	Leap int `json:"leap,omitempty"`
	// StopDelay bounds the time for which the shim holds back the kubelet's stop signal. In that
	// time the pod can leave its Services before the child stops. A later grant with another
	// StopDelay can prolong the wait. A later grant with the StopDelay zero ends the wait.
	StopDelay time.Duration `json:"delay,omitempty"`
}

// Unbounded is the deadline of a child whose pod has only a start lock, which the pod holds only
// during each start of a child. A shim refuses a grant with this deadline, unless the shim's own
// arguments permit it.
const Unbounded = time.Duration(1<<63 - 1)

// farthest is the longest possible time until the deadline of a bounded grant, because no Lease
// lasts longer than an hour.
const farthest = time.Hour

// Bounded reports whether a Lease can last until the deadline.
func (g *Grant) Bounded(now time.Duration) bool { return g.Deadline-now <= farthest }

// Heard bounds the time for which a shim waits for the agent's reaction to a message. An agent
// that gets processor time reacts within milliseconds, even if it first sends a request to the API
// server.
const Heard = 500 * time.Millisecond

// DrainAt returns the instant at which the child gets its stop signal.
func (g *Grant) DrainAt() time.Duration { return g.Deadline - g.Kill - g.Drain }

// KillAt returns the instant at which all descendants of the shim get SIGKILL.
func (g *Grant) KillAt() time.Duration { return g.Deadline - g.Kill }

// LastResort returns the instant at which the shim ends itself. The last two fifths of Kill are
// then left for the kernel, which kills the processes of the namespace together with PID 1.
func (g *Grant) LastResort() time.Duration { return g.Deadline - g.Kill*2/5 }

// check refuses a grant without a hold, a boot id or a deadline. It also refuses a grant with a
// negative duration, and a grant whose instants could overflow.
func (g *Grant) check() error {
	switch {
	case g.Hold == "" || g.BootID == "":
		return fmt.Errorf("%w: grant without hold or boot id", ErrMessage)
	case g.Deadline <= 0 || g.Drain < 0 || g.Kill < 0 || g.Drain > longest || g.Kill > longest:
		return fmt.Errorf("%w: grant until %v, drain %v, kill %v", ErrMessage, g.Deadline, g.Drain, g.Kill)
	case g.StartBy < 0:
		return fmt.Errorf("%w: grant with a start by %v", ErrMessage, g.StartBy)
	case g.StopDelay < 0 || g.StopDelay > longest:
		return fmt.Errorf("%w: grant with a delay of %v", ErrMessage, g.StopDelay)
	}
	return nil
}

// Slots is a list of slots as its JSON text, because two reports are compared by ==. [SlotsOf] makes it.
type Slots string

// SlotsOf returns the slots of the list, in the same order.
func SlotsOf(list []api.Token) Slots {
	if len(list) == 0 {
		return ""
	}
	b, _ := json.Marshal(list) // strings alone cause no error
	return Slots(b)
}

// List returns the slots in their order.
func (s Slots) List() (list []api.Token) {
	_ = json.Unmarshal([]byte(s), &list) // of SlotsOf
	return list
}

// MarshalJSON returns the list.
func (s Slots) MarshalJSON() ([]byte, error) {
	if s == "" {
		return []byte("null"), nil
	}
	return []byte(s), nil
}

// UnmarshalJSON refuses a longer list than a pod can hold.
func (s *Slots) UnmarshalJSON(b []byte) error {
	var list []api.Token
	if err := json.Unmarshal(b, &list); err != nil {
		return err
	}
	if len(list) > mostSlots {
		return fmt.Errorf("%d slots", len(list))
	}
	*s = SlotsOf(list)
	return nil
}

// Phase is what a shim does now: wait, run its child, drain, or end.
type Phase string

const (
	// Waiting means that the gate is closed. The shim has no child, and waits for a
	// grant.
	Waiting Phase = "waiting"
	// Running means that the child lives.
	Running Phase = "running"
	// Draining means that the child is being stopped, and may still live.
	Draining Phase = "draining"
	// Ended means that the container is about to end. The child and all its descendants are
	// dead and reaped, and the shim can use no grant.
	Ended Phase = "ended"
)

// Report is everything that the server knows about one shim. Each message of a shim but an [Outcome] is
// its Report: at each change, at each beat, and first on each connection, together with the shim's pidfd.
// The server adds the fields that are in no message. Reports are compared by ==, and each change causes a
// new, complete Report, so the reader needs only the last Report of each shim.
type Report struct {
	Shim      ShimID `json:"shim"`
	Container string `json:"container"`
	BootID    string `json:"bootID"`
	// PID1 reports that the shim is the first process of its PID namespace.
	PID1  bool  `json:"pid1"`
	Phase Phase `json:"phase"`
	// Hold is the hold of the shim's child while Phase is Running or Draining. In any other
	// Phase, Hold is the last hold that is over for this shim; empty before the first hold. No
	// descendant lives under that hold, and the shim starts no child under it, even if a grant
	// of that hold still arrives. If the agent has sent a grant to a Waiting shim, the grant may
	// still be on its way. So the hold of a sent grant is over only once this field names that
	// hold. After a Drain of a hold, the shim's next message names that hold in this field.
	Hold string `json:"hold,omitempty"`
	// Slots are the slots of the grant under which the child runs. From these slots a new agent
	// process learns which hold to resume.
	Slots Slots `json:"slots,omitempty"`
	// Began is the CLOCK_BOOTTIME instant at which the shim started. Of several shims of one
	// container, the shim that started last is the current one.
	Began time.Duration `json:"began"`
	// Since is the CLOCK_BOOTTIME instant at which Phase began.
	Since time.Duration `json:"since"`
	// Starting reports that the child's postStart hook has not ended. Until the end of the
	// hook, no probe counts.
	Starting bool `json:"starting,omitempty"`
	// Stopping reports that the kubelet has sent a stop signal to the shim. The shim holds that
	// signal back, or has held it back, for the StopDelay of the grant.
	Stopping bool `json:"stopping,omitempty"`
	// PreStop reports that the preStop hook runs, so the shim has not sent the stop signal to
	// the child yet.
	PreStop bool `json:"preStop,omitempty"`
	// Trouble is the last failure of this shim; zero if there was none.
	Trouble Trouble `json:"trouble,omitzero"`
	// Completed reports that the child ended with exit code 0 before anything had ordered it to
	// stop. An application that gets a stop signal often exits with 0 before its work is done.
	Completed bool `json:"completed,omitempty"`
	// Failed reports that the child ended with an exit code other than 0, or by a signal, before
	// anything had ordered it to stop.
	Failed bool `json:"failed,omitempty"`
	// Leap is the number of the last leap of the wall clock that no Grant has answered yet;
	// zero if each leap is answered. A leap may mean that the node was paused. So the child stays
	// frozen until a Grant answers the leap.
	Leap int `json:"leap,omitempty"`
	// HTTP reports that a hook of the shim sends HTTP requests. Such a hook needs the agent's
	// program, which the server installs before the shim gets a grant.
	HTTP bool `json:"http,omitempty"`

	// Connected reports that the shim is connected, so that grants and drains reach it.
	Connected bool `json:"-"`
	// Dead reports that the shim's pidfd became readable. The shim was PID 1 of its namespace,
	// so every process of that namespace is dead. In tests a shim need not be PID 1. For such a
	// shim, Dead also means that its last message reported that no descendant lives. Phase and
	// Hold come from the shim's last message. This Report is the last one about the shim.
	Dead bool `json:"-"`
	// Silent reports that a connected shim no longer sends its beats, one each [BeatEvery]. The
	// shim is suspended, or gets no processor time.
	Silent bool `json:"-"`
	// Unproven is the hold that was granted to another shim of the container, if that shim is
	// not proven dead; empty if there is none. If the note of that grant cannot be read,
	// Unproven is Unreadable. The agent may still grant a later hold to this shim, because the
	// rules of package lease permitted the acquisition of that later hold.
	Unproven string `json:"-"`
}

// HasChild reports whether the shim of the report has, or may have, a child.
func (r Report) HasChild() bool { return r.Phase == Running || r.Phase == Draining }

// Unreadable stands for the hold in a note if the note cannot be read. Such a note may name any
// hold that an earlier agent process granted.
const Unreadable = "unreadable"

// Trouble is a failure of a shim, which the agent reports in an Event on the pod.
type Trouble struct {
	// Serial is the number of the failure. Each shim counts its failures from one; zero means
	// that there was no failure.
	Serial  int    `json:"serial"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// These are the reasons of Trouble. For a failed hook, the reason is the same as in the kubelet's
// own Event.
const (
	ReasonPostStart = "FailedPostStartHook"
	ReasonPreStop   = "FailedPreStopHook"
	// ReasonNotPermitted means that the kernel does not let the shim send a signal.
	ReasonNotPermitted = "SignalNotPermitted"
)

// Known reports whether shims send Trouble with this reason. Another reason comes from a program
// that is no shim, or from a shim of a later version.
func (t Trouble) Known() bool {
	return t.Reason == ReasonPostStart || t.Reason == ReasonPreStop || t.Reason == ReasonNotPermitted
}

// Result is the outcome of a command that was run beside the child.
type Result struct {
	// Code is the command's exit code. If the signal n ended the command, Code is 128+n.
	Code int
	// Output is the beginning of the command's standard output and standard error.
	Output []byte
	// TimedOut reports that the shim killed the command at its timeout.
	TimedOut bool
}

// LockName names a file in the shared directory. Only the agent process that holds the flock on
// this file acts for the pod.
const LockName = "agent.lock"
