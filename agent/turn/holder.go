// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/instant"
	"github.com/metaparticle-io/metaparticle/api"
)

// Ask is a pod's wish for its turn, as the holder sees that wish in the next Lease.
type Ask struct {
	// Identity is the identity of the pod that asks; empty for no ask.
	Identity string
	Revision api.Revision
	// Seen is the instant at which the holder saw the ask change.
	Seen time.Duration
}

// Hold has the facts about a hold.
type Hold struct {
	ID string
	// Since is the instant at which this agent process began, or resumed, the hold.
	Since time.Duration
	// Resumed: an earlier agent process began the hold.
	Resumed bool
	// Rollout is the rollout in the Lease.
	Rollout Rollout
	// Serves: the application runs and passes its probes, since the instant Serving.
	Serves  bool
	Serving time.Duration
	// Stopped is the instant at which the application last stopped serving, after it had
	// served for [Proof]; zero for never.
	Stopped time.Duration
	Paused  bool
	Ask     Ask
}

// Holder is the decision about a holder.
type Holder struct {
	// Rollout is the rollout that the next renewal writes.
	Rollout Rollout
	// Proving: the pod is in its turn, and has not served for [Proof] yet. So the pod is
	// not Ready.
	Proving bool
	Message string
	// To is the pod to which the holder yields, and Turn is the revision of that pod;
	// empty for none.
	To   string
	Turn api.Revision
	// Failed: the turn has failed, so the hold has to end.
	Failed bool
	// Proven: the revision is proven. Starting: its application has not served yet in this
	// hold, but is in time.
	Proven, Starting bool
	// Wake is the instant of the next decision, if nothing happens before it.
	Wake time.Duration
}

// Hold returns the decision about a holder. A holder without a revision keeps the
// rollout in the Lease.
func (p Pod) Hold(now time.Duration, wall time.Time, h Hold) Holder {
	holding := Holder{Rollout: h.Rollout, Wake: instant.Never}
	if !p.Revision.Valid() {
		return holding
	}
	r := p.proven(now, h)
	r.Hold = h.ID
	r.Yields = yields(now, h)
	r = p.timed(now, wall, h, r)
	holding.Rollout = r
	if r.inTurn(h.ID) {
		if holding.Proving = !h.passed(now, Proof); holding.Proving {
			holding.Message = p.turnOf(r)
		}
		holding.Failed = p.failed(now, h)
	}
	holding.Proven = p.Revision.Same(r.Proven)
	holding.Starting = p.starting(now, h)
	for _, at := range h.instants(p, r) {
		if now < at {
			holding.Wake = min(holding.Wake, at)
		}
	}
	if h.Ask.fresh(now, h.Since) && p.yieldsTo(now, h, h.Ask.Revision) && r.Yields == Now {
		holding.To, holding.Turn = h.Ask.Identity, h.Ask.Revision
	}
	return holding
}

// instants returns the instants at which the decision may change, if nothing happens before.
// The instants of asks are missing, because an asker writes again. The argument r is the
// rollout as it is now.
func (h Hold) instants(p Pod, r Rollout) []time.Duration {
	var all []time.Duration
	if h.Serves {
		all = append(all, h.Serving+p.provenAfter(), h.Serving+p.provenAfter()+Forget)
		if !h.Paused {
			all = append(all, h.Serving+Rest)
		}
	}
	if r.inTurn(h.ID) {
		if h.Serves {
			all = append(all, h.Serving+Proof)
		}
		if at := h.failsAt(p); !h.servedBy(at) {
			all = append(all, at)
		}
	}
	if h.unserved(p) {
		all = append(all, h.startsBy(p))
	}
	for _, one := range r.Turns {
		if one.Revision.NewerThan(p.Revision) {
			all = append(all, h.Since+wait(one.Count))
		}
	}
	return all
}

// passed reports whether the application has served for the span.
func (h Hold) passed(now, span time.Duration) bool { return h.Serves && now >= h.Serving+span }

// servedBy reports whether the application serves, and began to serve before the instant.
func (h Hold) servedBy(at time.Duration) bool { return h.Serves && h.Serving < at }

// proven returns the rollout as it is now. Once the application has served for [Proof]
// and the controller's MinReady, the rollout names the pod's revision as proven, and the
// turn is over. The rollout keeps the count of turns for the span [Forget]. So the count
// does not begin anew for a version that crashes some minutes after its start.
func (p Pod) proven(now time.Duration, h Hold) Rollout {
	r := h.Rollout
	if !h.passed(now, p.provenAfter()) {
		return r
	}
	r.Yielder, r.From = "", api.Revision{}
	if r.Proven != p.Revision {
		r.Proven, r.Start = p.Revision, 0
		if !h.Resumed {
			r.Start = min(h.Serving-h.Since, longestTurn).Truncate(time.Millisecond)
		}
	}
	if h.passed(now, p.provenAfter()+Forget) {
		r = r.forgotten(p.Revision)
	}
	return r
}

// yields returns whether the holder yields now, later or not at all. A holder that does not
// serve has nothing to lose, and yields at once.
func yields(now time.Duration, h Hold) Yields {
	switch {
	case h.Paused:
		return Not
	case h.Serves && !h.passed(now, Rest):
		return Later
	}
	return Now
}

// yieldsTo reports whether the revision is newer than the holder's, and has waited long
// enough since its last turn.
func (p Pod) yieldsTo(now time.Duration, h Hold, revision api.Revision) bool {
	count := h.Rollout.of(revision).Count
	from := h.Since + wait(count)
	if count > 0 && !h.Serves {
		// After a turn that failed, the holder's application starts again, and gets time
		// for its start. That time is bounded, because the turn may have broken the data
		// so that only a newer version can serve.
		from = max(from, h.Since+min(p.Lasts(h.Rollout.Start), longestTurn))
	}
	return revision.NewerThan(p.Revision) && now >= from
}

// timed returns the rollout with the times of the next turns. The Lease keeps a time,
// once written, until that time comes.
func (p Pod) timed(now time.Duration, wall time.Time, h Hold, r Rollout) Rollout {
	r.Turns = slices.Clone(r.Turns)
	for i, one := range r.Turns {
		at := h.Since + wait(one.Count)
		switch {
		case !one.Revision.NewerThan(p.Revision) || now >= at:
			r.Turns[i].Next = time.Time{}
		case one.Next.IsZero():
			r.Turns[i].Next = wall.Add(at - now).Truncate(time.Second)
		}
	}
	return r
}

// failed reports whether the turn has failed, because the application did not begin to
// serve in time. An application that began in time may go on until its revision is
// proven. If the pod was Ready and then stops serving, the time begins anew, as the
// controller's own count does.
func (p Pod) failed(now time.Duration, h Hold) bool {
	at := h.failsAt(p)
	return now >= at && !h.servedBy(at)
}

// failsAt returns the instant at which the turn fails, unless the application began to serve
// before.
func (h Hold) failsAt(p Pod) time.Duration {
	return max(h.Since, h.Stopped) + p.Lasts(h.Rollout.Start)
}

// starting reports whether the application of a proven revision has not served yet in this
// hold, but still has time to begin. That time is as long as in a turn.
func (p Pod) starting(now time.Duration, h Hold) bool {
	return h.unserved(p) && now < h.startsBy(p)
}

// unserved reports whether the revision is proven, and its application has not served yet
// in this hold.
func (h Hold) unserved(p Pod) bool {
	return !h.Serves && h.Serving == 0 && p.Revision.Same(h.Rollout.Proven)
}

// startsBy returns the instant from which an application that has not served counts no
// longer as starting.
func (h Hold) startsBy(p Pod) time.Duration { return h.Since + p.Lasts(h.Rollout.Start) }

// fresh reports whether the holder saw the ask change during this hold, and within
// [Fresh].
func (a Ask) fresh(now, since time.Duration) bool {
	return a.Identity != "" && a.Seen >= since && now < a.Seen+Fresh
}

// Acquired returns the rollout for the acquiring write of the hold. The argument s is the
// slot before that write. The hold is a turn if an older revision's release names the pod.
// The hold is also a turn if the pod takes the slot of its own unfinished turn back.
func (p Pod) Acquired(now time.Duration, wall time.Time, s Slot, hold string) Rollout {
	if !p.Revision.Valid() {
		return s.Rollout
	}
	r := s.Rollout.lasting()
	r.Hold = hold
	named := s.Holder == "" && s.Successor == p.Identity && p.Revision.NewerThan(s.Rollout.From)
	again := s.Holder == p.Identity && s.Rollout.inTurn(s.Hold)
	if named || again {
		r.Yielder, r.From = s.Rollout.Yielder, s.Rollout.From
	}
	return p.Hold(now, wall, Hold{ID: hold, Since: now, Rollout: r}).Rollout
}

// Released returns the rollout for the releasing write, and the pod that is to hold next;
// empty for any. If the argument to is not empty, the hold yields to that pod, and the
// argument turn is the revision of that pod. A turn that is not proven gives the slot back
// to the pod that yielded for that turn. If the holder of such a turn yields, too, a failed
// next turn gives the slot back to the same pod.
func (p Pod) Released(s Slot, to string, turn api.Revision) (r Rollout, successor string) {
	if !p.Revision.Valid() {
		return s.Rollout, to
	}
	r = s.Rollout.lasting()
	inTurn := s.Rollout.inTurn(s.Hold)
	r.Yielder, r.From = p.Identity, p.Revision
	if inTurn {
		r.Yielder, r.From = s.Rollout.Yielder, s.Rollout.From
	}
	switch {
	case to != "" && turn.Valid():
		r = r.counted(turn)
	case to == "" && inTurn:
		to = s.Rollout.Yielder
	}
	return r, to
}

// Deleted returns the pod that the release of a deleted pod names, and that pod's revision.
// The pod is the asker. The result is empty if the slot is paused, nobody asks, or the
// asker's revision has to wait for its next turn.
func (p Pod) Deleted(now time.Duration, h Hold) (to string, turn api.Revision) {
	if p.Revision.Valid() && !h.Paused && h.Ask.fresh(now, h.Since) && p.yieldsTo(now, h, h.Ask.Revision) {
		return h.Ask.Identity, h.Ask.Revision
	}
	return "", api.Revision{}
}
