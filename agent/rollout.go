// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"strconv"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/agent/kube"
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
	// asks has the asks and the offers of other pods.
	asks asks
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
	if one && c.Readiness == api.ReadinessForward && !c.KubeletStops && !c.gatesReadiness() {
		r.pod.Revision, r.pod.Startup, r.pod.MinReady = c.Revision, startup(c.Probes), c.MinReady
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

// see stores the hold that the standby sees, and whether a grant would start the whole application.
// If the hold has changed, see also stores the present instant, and clears waiting.Due. If the Lease
// does not name this pod, the pod's turn has ended.
func (r *rollout) see(now time.Duration, views []elector.View, whole bool) {
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
	r.waiting.Whole = whole
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
	case a.Kind == elector.Acquire && r.workload != "":
		return r.acquired(now, wall, record, a.Record.Hold).String()
	case a.Kind == elector.Acquire, !r.takesTurns():
		return record.Rollout
	case r.released.hold == a.Hold:
		return r.released.text
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
	case next.String() == "" || next.Proven.Workload == r.workload:
		return turn.Rollout{}
	}
	next.Transitions = lease.Self{Identity: r.pod.Identity}.Transitions(record)
	return next
}

// asks has the ask and the offers that the next Lease contains.
type asks struct {
	// version is the last resourceVersion of the next Lease that the agent has seen.
	version string
	// asker is the pod of the last ask that the agent has seen, even if that ask did not count. The
	// field "renewed" is the renew time of that ask.
	asker   string
	renewed time.Time
	last    turn.Ask
	offers  api.Offers
}

// see stores the ask and the offers that the next Lease contains. If the agent has not seen the
// next Lease before, an ask in that Lease does not count, because the ask may be old. A pod that
// still asks writes its ask again, with another renew time. So a write that keeps the asker and the
// renew time does not renew the ask. Such a write comes from a person, or encrypts etcd anew. The
// argument "own" is the resourceVersion of the holder's own Lease.
func (a *asks) see(now time.Duration, l *kube.Lease, own string) {
	if l.ResourceVersion == a.version {
		return
	}
	first := a.version == ""
	if !first && precedes(l.ResourceVersion, a.version) {
		// A watch without a version may begin with old states. But after a restore of etcd, each
		// version may be smaller than before. Then the holder's renewals soon have smaller versions, too.
		if !precedes(own, a.version) {
			return
		}
		first = true
	}
	a.version = l.ResourceVersion
	a.offers = api.ParseOffers(l.Annotations[api.OffersAnnotation])
	if l.Annotations[api.RevisionAnnotation] == "" && l.Holder != "" && a.offers.Of(l.Holder) {
		return // an offer replaces the ask in the Lease, but does not end the ask
	}
	repeated := l.Holder == a.asker && l.RenewTime.Equal(a.renewed)
	a.asker, a.renewed = l.Holder, l.RenewTime
	revision, err := api.ParseRevision(l.Annotations[api.RevisionAnnotation])
	switch {
	case err != nil || first || !revision.Valid():
		a.last = turn.Ask{}
	case !repeated:
		a.last = turn.Ask{Identity: l.Holder, Revision: revision, Seen: now}
	}
}

// precedes reports whether the first resourceVersion is certainly older than the second one. If one
// of the two is not a number, the result is false.
func precedes(version, other string) bool {
	v, err := strconv.ParseUint(version, 10, 64)
	o, otherErr := strconv.ParseUint(other, 10, 64)
	return err == nil && otherErr == nil && v < o
}

// offersTo returns the offers that other pods made for the leave with the given id; nil if the
// known offers are for another leave.
func (a *asks) offersTo(leave string) []api.Offer {
	if a.offers.Leave != leave {
		return nil
	}
	return a.offers.Pods
}
