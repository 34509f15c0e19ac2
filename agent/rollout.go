// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"time"

	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/agent/turn"
	"github.com/metaparticle-io/metaparticle/api"
)

// rollout has what package turn needs to decide about the pod's part in the rollouts of its
// workload.
type rollout struct {
	// pod has the zero revision if this pod takes no turns.
	pod turn.Pod
	// workload is the UID of the pod's workload; empty if unknown.
	workload string
	// hold is the hold that the standby last saw in the Lease. The field "since" is the
	// instant at which the standby first saw that hold.
	hold  string
	since time.Duration
	// waiting has the facts by which a standby decides whether the pod asks for its turn.
	waiting turn.StandbyFacts
	// heard is what the holder has heard from other pods.
	heard heard
	// Until the instant hungUntil this pod answers no holder that it can take the slot, and takes the slot
	// only if it is free for [turn.LastResort], because its own application has hung.
	hungUntil time.Duration
	hangs     int // holds of this process that have ended because the application hung
	// speaks reports that the pod may speak to the holder of its slot: it has one slot, and that slot has a next Lease.
	speaks bool
	// preferred reports that a preference names this pod.
	preferred bool
	// released has the value of [api.RolloutAnnotation] for the release of the last hold.
	released releaseText
	// turnBegan is the instant at which this process began, or resumed, the turn; zero if the Lease
	// no longer names this pod.
	turnBegan time.Duration
}

// releaseText has the value of [api.RolloutAnnotation] that the release of the hold writes into the
// Lease.
type releaseText struct{ hold, text string }

func newRollout(c Config) *rollout {
	r := &rollout{pod: turn.Pod{Identity: api.Identity(c.PodName, c.PodUID)}, workload: c.Revision.Workload}
	// A pod of several slots has no single holder to ask, and enroll makes a next Lease only
	// for some slots. The gates "pod" and "readiness" cannot give the slot back within a turn.
	// With the readiness "holder" no standby is Ready, so no pod needs a turn.
	one := len(c.Slots) == 1 && api.HasNextLease(c.Slots[0])
	r.speaks = one && !c.KubeletStops && !c.gatesReadiness()
	r.pod.Startup, r.pod.MinReady = startup(c.Probes), c.MinReady
	if r.speaks && c.Readiness == api.ReadinessForward {
		r.pod.Revision = c.Revision
		r.preferred = c.Prefer == PrefersSelf
	}
	return r
}

// takesTurns reports whether the pod takes turns with pods of other revisions.
func (r *rollout) takesTurns() bool { return r.pod.Revision.Valid() }

// startup returns the longest time that the startup and readiness probes of a container
// give the application to start.
func startup(probes map[string]api.Probes) time.Duration {
	longest := time.Duration(0)
	for _, p := range probes {
		one := time.Duration(0)
		if s := p.Startup; s != nil {
			one += s.InitialDelay() + time.Duration(s.FailureThreshold)*s.Period()
		}
		if r := p.Readiness; r != nil {
			one += r.InitialDelay() + time.Duration(r.FailureThreshold+r.SuccessThreshold)*r.Period()
		}
		longest = max(longest, one)
	}
	return longest
}

// slotOf converts the record of a Lease for package turn. An outdated text about turns counts as
// missing, because the revision in that text may have been replaced since.
func slotOf(r lease.Record) turn.Slot {
	text := turn.Parse(r.Rollout)
	if text.Transitions != 0 && text.Transitions != r.Transitions {
		text = turn.Rollout{}
	}
	return turn.Slot{
		Known: r.UID != "", Holder: r.Holder, Hold: r.Hold, Revision: r.Profile.Revision,
		Rollout: text, Successor: r.Successor,
	}
}

// standing returns package turn's decision about a standby that sees these views of its slots.
// The argument "began" reports whether this agent process has begun a hold.
func (r *rollout) standing(now time.Duration, views []elector.View, began func(hold string) bool) turn.StandbyDecision {
	if !r.takesTurns() {
		return turn.StandbyDecision{Wake: pace.Never}
	}
	s := slotOf(*views[0].Record)
	s.Known, s.FreeAt, s.Since = views[0].Known, views[0].FreeAt, r.since
	s.Earlier = !began(s.Hold) && s.Hold != r.released.hold
	return r.pod.Standby(now, s, r.waiting)
}

// turnSince returns the instant at which this process began the turn that the rollout describes, for
// a hold that begins now. A pod that loses its hold in a turn, and takes the slot back, goes on with the
// same turn. Otherwise the turn of a pod with a bad network would never end.
func (r *rollout) turnSince(now time.Duration, of turn.Rollout) time.Duration {
	if of.Yielder == "" || r.turnBegan == 0 {
		return now
	}
	return r.turnBegan
}

// see stores the hold that the standby sees, whether a grant would start the whole application, and
// since when the pod is Ready.
// If the hold has changed, see also stores the present instant, and clears waiting.Due. If the Lease
// does not name this pod, the pod's turn has ended.
func (r *rollout) see(now time.Duration, views []elector.View, whole bool, s stored) {
	hold := ""
	if len(views) > 0 {
		hold = views[0].Record.Hold
	}
	if len(views) == 0 || views[0].Record.Holder != r.pod.Identity {
		r.turnBegan = 0
	}
	if hold != r.hold || r.since == 0 {
		r.hold, r.since, r.waiting.Due = hold, now, 0
	}
	r.waiting.Whole, r.waiting.Preferred, r.waiting.Hangs, r.waiting.ReadySince = whole, r.preferred, r.hangs, 0
	if s.ready {
		r.waiting.ReadySince = s.since
	}
}

// learn stores whether this pod's turn has failed, and the first instant at which the holder would
// yield to this pod. After a failed turn, the pod lets other pods ask first, for a while from that
// instant on. The instant stays the same while the Lease shows the same hold. Otherwise the
// wait would begin anew after each moment in which the holder's application does not serve, and
// the pod might never ask.
func (r *rollout) learn(now time.Duration, s turn.StandbyDecision) {
	r.waiting.Failed = r.waiting.Failed || s.Failed
	if s.Due && r.waiting.Due == 0 {
		r.waiting.Due = now
	}
}

// text returns the value of [api.RolloutAnnotation] for an acquiring or releasing write, which replaces
// the record.
func (r *rollout) text(now time.Duration, wall time.Time, a elector.Action, record lease.Record) string {
	switch {
	case a.Kind == elector.Acquire && (r.workload != "" || !turn.Parse(record.Rollout).Proven.Valid()):
		return r.acquired(now, wall, record, a.Record.Hold).String()
	case a.Kind == elector.Acquire:
		return record.Rollout
	case r.released.hold == a.Hold:
		return r.released.text
	case !r.takesTurns():
		return record.Rollout
	}
	left, _ := r.pod.Released(slotOf(record), "", api.Revision{})
	return left.String()
}

// acquired returns the rollout that the acquiring write of the hold stores. A pod that takes no turns
// keeps the rollout of another workload. The rollout of the pod's own workload ends with the
// acquiring write: without turns, pods of any revision may hold until the next turn.
func (r *rollout) acquired(now time.Duration, wall time.Time, record lease.Record, hold string) turn.Rollout {
	slot := slotOf(record)
	next := slot.Rollout
	switch {
	case r.takesTurns():
		next = r.pod.Acquired(now, wall, slot, hold)
	case next.Proven.Workload == r.workload || !next.Proven.Valid():
		if next = (turn.Rollout{Hangs: next.Hangs, Hung: next.Hung}); next.Hangs == 0 {
			return turn.Rollout{}
		}
	}
	next.Transitions = lease.Self{Identity: r.pod.Identity}.Transitions(record)
	return next
}
