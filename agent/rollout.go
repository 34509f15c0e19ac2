// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/agent/turn"
	"github.com/metaparticle-io/metaparticle/api"
)

// rollout has what package turn needs to decide about the pod's part in the rollouts of its workload.
type rollout struct {
	// pod has the zero revision if this pod takes no turns.
	pod turn.Pod
	// workload is the UID of the pod's workload; empty if unknown.
	workload string
	// hold is the hold that the standby last saw in the Lease, first at the instant "since".
	hold    string
	since   time.Duration
	waiting turn.StandbyFacts
	heard   heard
	// Until the instant hungUntil this pod answers no holder that it can take the slot, and takes the slot
	// only if it is free for [turn.LastResort], because its own application has hung.
	hungUntil time.Duration
	// speaks reports that the pod may speak to the holder of its slot.
	speaks bool
	// releasedText is the value of [api.RolloutAnnotation] for the release of the hold "released", the last one.
	released, releasedText string
	// turnBegan is the instant at which this process began, or resumed, the turn; zero if the Lease no longer names
	// this pod. A pod that loses its hold in a turn, and takes the slot back, goes on with the same turn.
	// Otherwise the turn of a pod with a bad network would never end.
	turnBegan time.Duration
}

func newRollout(c Config) *rollout {
	r := &rollout{pod: turn.Pod{Identity: api.Identity(c.PodName, c.PodUID)}, workload: c.Revision.Workload}
	// A pod of several slots has no single holder to ask, and enroll makes a next Lease only for some slots. The
	// gates "pod" and "readiness" cannot give the slot back within a turn. With the readiness "holder" no standby
	// is Ready, so no pod needs a turn.
	one := len(c.Slots) == 1 && api.HasNextLease(c.Slots[0])
	r.speaks = one && !c.KubeletStops && !c.gatesReadiness()
	r.pod.Startup, r.pod.MinReady = startup(c.Probes), c.MinReady
	if r.speaks && c.Readiness == api.ReadinessForward {
		r.pod.Revision = c.Revision
		r.waiting.Preferred = c.Preferred == PrefersSelf
	}
	return r
}

// takesTurns reports whether the pod takes turns with pods of other revisions.
func (r *rollout) takesTurns() bool { return r.pod.Revision.Valid() }

// startup returns the longest time that the probes of a container give the application to start.
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

// slotOf converts the record of a Lease for package turn. An outdated text about turns counts as missing.
func slotOf(r lease.Record) turn.Slot {
	return turn.Slot{
		Known: r.UID != "", Holder: r.Holder, Hold: r.Hold, Revision: r.Profile.Revision,
		Rollout: api.ParseRollout(r.Rollout).Current(r.Transitions), Successor: r.Successor,
	}
}

// standing returns package turn's decision about a standby that sees these views of its slots. The argument
// "whole" reports that a grant would start the whole application, and "began" whether this agent process has
// begun a hold.
func (r *rollout) standing(now time.Duration, views []elector.View, whole bool, shown stored, began func(hold string) bool) turn.StandbyDecision {
	if !r.takesTurns() {
		return turn.StandbyDecision{Wake: pace.Never}
	}
	s, w := slotOf(*views[0].Record), &r.waiting
	if s.Holder != r.pod.Identity {
		r.turnBegan = 0
	}
	if s.Hold != r.hold || r.since == 0 {
		r.hold, r.since, w.Due = s.Hold, now, 0
	}
	s.Known, s.FreeAt, s.Since = views[0].Known, views[0].FreeAt, r.since
	s.Earlier = !began(s.Hold) && s.Hold != r.released
	if w.Whole, w.ReadySince = whole, 0; shown.ready {
		w.ReadySince = shown.since
	}
	got := r.pod.Standby(now, s, *w)
	w.Failed = w.Failed || got.Failed
	// The instant stays the same while the Lease shows the same hold. Otherwise the wait after a failed turn
	// would begin anew after each moment in which the holder's application does not serve.
	if got.Due && w.Due == 0 {
		w.Due = now
	}
	return got
}

// namesake reports that the record of a workload's own slot is of a deleted workload of the same name. Its pods are
// gone, and its failures are not those of this workload.
func (r *rollout) namesake(slot string, record api.Rollout) bool {
	last := cmp.Or(record.From, record.Proven).Workload
	return api.ScopeOf(slot) == api.ScopeWorkload && last != "" && r.workload != "" && last != r.workload
}

// text returns the value of [api.RolloutAnnotation] for an acquiring or releasing write over the record. A pod that
// takes no turns keeps the rollout of another workload. The rollout of its own workload ends with the acquiring
// write: without turns, pods of any revision may hold until the next turn.
func (r *rollout) text(now time.Duration, wall time.Time, a elector.Action, record lease.Record) string {
	slot, acquires := slotOf(record), a.Kind == elector.Acquire
	if acquires && r.namesake(a.Slot, slot.Rollout) {
		slot.Rollout = api.Rollout{}
	}
	next := slot.Rollout
	switch {
	case acquires && r.workload == "" && api.ParseRollout(record.Rollout).Proven.Valid():
		return record.Rollout
	case acquires && r.takesTurns():
		next = r.pod.Acquired(now, wall, slot, a.Record.Hold)
	case acquires:
		if next.Proven.Workload == r.workload || !next.Proven.Valid() {
			if next = (api.Rollout{Hangs: next.Hangs, Hung: next.Hung}); next.Hangs == 0 {
				return ""
			}
		}
	case r.released == a.Hold:
		return r.releasedText
	case !r.takesTurns():
		return record.Rollout
	default:
		next, _ = r.pod.Released(slot, "", api.Revision{})
		return next.String()
	}
	next.Transitions = lease.Self{Identity: r.pod.Identity}.Transitions(record)
	return next.String()
}
