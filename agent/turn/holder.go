// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"cmp"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
)

// HolderFacts has the facts on which the decision about a holder depends.
type HolderFacts struct {
	ID string
	// Since is the instant at which this agent process began, or resumed, the hold.
	Since time.Duration
	// TurnSince is the instant at which this agent process began, or resumed, the turn. A turn may
	// outlast a hold, if the pod takes its own slot back. If TurnSince is zero, Since counts.
	TurnSince time.Duration
	// Resumed reports that an earlier agent process began the hold.
	Resumed bool
	// Rollout is the state of the rollout, as the Lease has it.
	Rollout Rollout
	// Serves reports that the application runs and passes its probes. Serving is the instant at
	// which the application last began to serve; zero if it has not served in this hold.
	Serves  bool
	Serving time.Duration
	// Stopped is the instant at which the application last stopped serving. A stop counts only if
	// the application had served for at least [Proof] before. The value is zero without such a
	// stop.
	Stopped time.Duration
	// Failing is the instant at which the application last stopped serving, whether or not it still
	// runs. The value is zero while the application serves, and before it has served in this hold.
	Failing time.Duration
	// YieldAfter is the time after which an application that fails its readiness probe hangs; zero for
	// none. Alone reports that no other pod claims the slot, as far as enroll knows.
	YieldAfter time.Duration
	Alone      bool
	// Prefers reports that other pods than this one are preferred.
	Prefers bool
	Paused  bool
	// Wishes are the other pods' wishes for the slot of this hold. Unanswered are the last pods for which
	// the holder has announced its end in vain.
	Wishes     api.Words
	Unanswered []string
}

// HolderDecision is the decision about a holder.
type HolderDecision struct {
	// Rollout is the state of the rollout that the next renewal writes.
	Rollout Rollout
	// Proving reports that the pod must not be Ready yet. Its revision is newer than the proven one,
	// and its application has not served for [Proof].
	Proving bool
	Message string
	// To is the wish of the pod to which the holder must yield now, if that pod answers; the zero value
	// if the holder must not yield.
	To api.Word
	// Hangs reports that the application hangs, so the holder must yield to any pod that answers.
	Hangs bool
	// Failed reports that the turn has failed, so the hold must end.
	Failed bool
	// Proven reports that the holder's own revision is proven. Starting reports that the
	// application of a holder with a proven revision has not served yet in this hold, and still
	// has time to begin.
	Proven, Starting bool
	// Wake is the instant of the next decision, unless the facts change before that.
	Wake time.Duration
}

// Holder returns the decision about a holder. A holder without a revision leaves the rollout in
// the Lease unchanged.
func (p Pod) Holder(now time.Duration, wall time.Time, h HolderFacts) HolderDecision {
	holding := HolderDecision{Rollout: h.Rollout, Wake: pace.Never}
	if at := h.hangsAt(); now >= at {
		holding.Hangs = true
	} else {
		holding.Wake = at
	}
	if !p.Revision.Valid() {
		return holding
	}
	r := p.proven(now, h)
	r.Hold = h.ID
	r.Yields = yields(now, h)
	r = p.timed(now, wall, h, r)
	r.Prefers = p.prefersNow(now, h, r)
	h.Rollout.Prefers = r.Prefers
	holding.Rollout = r
	if holding.Proving = r.unproven(h.ID, p.Revision) && !h.passed(now, Proof); holding.Proving {
		holding.Message = p.holdFor(r, h.ID)
	}
	holding.Failed = r.inTurn(h.ID) && p.failed(now, h)
	holding.Proven = p.Revision.Same(r.Proven)
	holding.Starting = p.starting(now, h)
	for _, at := range h.instants(p, r) {
		if now < at {
			holding.Wake = min(holding.Wake, at)
		}
	}
	if r.Yields == Now {
		holding.To = p.wished(now, h)
	}
	return holding
}

// wished returns the first wish to which the holder would yield; the zero value if there is none.
func (p Pod) wished(now time.Duration, h HolderFacts) api.Word {
	for _, w := range h.Wishes {
		if w.Say == api.WantsPreferred && p.yieldsToPreferred(h, w) || w.Say != api.WantsPreferred && p.yieldsTo(now, h, w.Revision) {
			return w
		}
	}
	return api.Word{}
}

// instants returns the instants at which the decision may change without a new fact. The argument
// "r" is the present rollout.
func (h HolderFacts) instants(p Pod, r Rollout) []time.Duration {
	var all []time.Duration
	if h.Serves {
		all = append(all, h.Serving+Proof, h.Serving+p.provenAfter(), h.Serving+p.provenAfter()+Forget)
		if !h.Paused {
			all = append(all, h.Serving+Rest)
		}
		if h.Prefers {
			all = append(all, h.Serving+Settled)
		}
	}
	if len(h.Wishes) > 0 && !h.Serves {
		all = append(all, h.failsAt(p), h.endsAt(p), h.Since+p.Lasts(h.Rollout.Start()))
	}
	if r.inTurn(h.ID) {
		if at := h.failsAt(p); h.servedBy(at) {
			all = append(all, h.endsAt(p))
		} else {
			all = append(all, min(at, h.endsAt(p)))
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
func (h HolderFacts) passed(now, span time.Duration) bool { return h.Serves && now >= h.Serving+span }

// servedBy reports whether the application serves, and began to serve before the given instant.
func (h HolderFacts) servedBy(at time.Duration) bool { return h.Serves && h.Serving < at }

// proven returns the present rollout. Once the application has served for [Proof] and the
// controller's MinReady, the rollout names the pod's revision as proven, and the turn is over.
// The rollout keeps the count of turns for the span [Forget]. So the count does not begin again
// for a revision that crashes some minutes after its start.
func (p Pod) proven(now time.Duration, h HolderFacts) Rollout {
	r := h.Rollout
	if !h.passed(now, p.provenAfter()) {
		return r
	}
	r.Yielder, r.From = "", api.Revision{}
	if r.Proven != p.Revision {
		r.Proven, r.StartMilliseconds = p.Revision, 0
		if !h.Resumed {
			r.StartMilliseconds = min(h.Serving-h.Since, longestTurn).Milliseconds()
		}
	}
	if h.passed(now, p.provenAfter()+Forget) {
		r = r.forgotten(p.Revision)
	}
	return r
}

// yields returns whether the holder yields now, later or not at all. During a pause the holder does
// not yield. Otherwise, if the application does not serve, no client loses anything, so the holder
// yields at once.
func yields(now time.Duration, h HolderFacts) Yields {
	switch {
	case h.Paused:
		return Not
	case h.Serves && !h.passed(now, Rest):
		return Later
	}
	return Now
}

// yieldsTo reports whether the holder would yield to a pod of the given revision. A newer revision
// must have waited long enough for its next turn. The wait counts from the beginning of the hold.
func (p Pod) yieldsTo(now time.Duration, h HolderFacts, revision api.Revision) bool {
	if h.Rollout.reclaimed(h.ID, p.Revision, revision) {
		// An application that serves again and again gets as much time as in a turn. But no pod stops an
		// application while it serves, because the pod that asks may have come back late.
		return !h.Serves && now >= min(h.failsAt(p), h.endsAt(p))
	}
	count := h.Rollout.of(revision).Count
	from := h.Since + wait(count)
	if count > 0 && !h.Serves {
		// After a failed turn, the holder's application starts again, and gets time for its
		// start. That time is bounded, because the failed turn may have changed the data so
		// that only a newer revision can serve.
		from = max(from, h.Since+min(p.Lasts(h.Rollout.Start()), longestTurn))
	}
	return revision.NewerThan(p.Revision) && now >= from
}

// timed returns the rollout with the times of the next turns, by the wall clock. If the Lease
// already has a time for a turn, the rollout keeps that time until the turn may begin.
func (p Pod) timed(now time.Duration, wall time.Time, h HolderFacts, r Rollout) Rollout {
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

// failed reports whether the turn has failed, because the application did not begin to serve in
// time. If the application began in time, the turn may go on until the revision is proven. If the
// pod was Ready and then stops serving, the time begins again, as the controller's minReadySeconds
// do. But no turn lasts longer than [HolderFacts.endsAt].
func (p Pod) failed(now time.Duration, h HolderFacts) bool {
	at := h.failsAt(p)
	return now >= at && !h.servedBy(at) || now >= h.endsAt(p)
}

// failsAt returns the instant at which the turn fails, unless the application begins to serve
// before that.
func (h HolderFacts) failsAt(p Pod) time.Duration {
	return max(h.turnSince(), h.Stopped) + p.Lasts(h.Rollout.Start())
}

// proofs is the number of proofs for which a turn has time. After a short failure the application
// gets time for another proof.
const proofs = 3

// endsAt returns the instant at which the turn fails in any case, unless the revision is proven
// before that. An application that serves again and again, but never for long enough, is broken.
func (h HolderFacts) endsAt(p Pod) time.Duration {
	return h.turnSince() + p.Lasts(h.Rollout.Start()) + proofs*p.provenAfter()
}

func (h HolderFacts) turnSince() time.Duration { return cmp.Or(h.TurnSince, h.Since) }

// starting reports whether the application of a proven revision has not served yet in this
// hold, and still has time to begin. That time is as long as in a turn.
func (p Pod) starting(now time.Duration, h HolderFacts) bool {
	return h.unserved(p) && now < h.startsBy(p)
}

// unserved reports whether the revision of the pod p is proven, and the pod's application has not
// served yet in this hold.
func (h HolderFacts) unserved(p Pod) bool {
	return !h.Serves && h.Serving == 0 && p.Revision.Same(h.Rollout.Proven)
}

// startsBy returns the instant by which the application must begin to serve in this hold.
func (h HolderFacts) startsBy(p Pod) time.Duration { return h.Since + p.Lasts(h.Rollout.Start()) }

// Acquired returns the rollout that the acquiring write of the hold stores. The argument "s" is
// the slot before that write. The hold is a turn if an older revision's release names this pod.
// The hold is also a turn if this pod takes back the slot of its own unfinished turn.
func (p Pod) Acquired(now time.Duration, wall time.Time, s Slot, hold string) Rollout {
	if !p.Revision.Valid() {
		return s.Rollout
	}
	r := s.Rollout.lasting()
	r.Hold = hold
	if s.Holder == "" {
		r.Moved = s.Rollout.Moved
	}
	named := s.Holder == "" && s.Successor == p.Identity && p.Revision.NewerThan(s.Rollout.From)
	again := s.Holder == p.Identity && s.Rollout.inTurn(s.Hold)
	if named || again {
		r.Yielder, r.From = s.Rollout.Yielder, s.Rollout.From
	}
	return p.Holder(now, wall, HolderFacts{ID: hold, Since: now, Rollout: r}).Rollout
}

// Released returns the rollout that the releasing write stores, and the successor; empty for
// none. If the argument "to" is not empty, the hold yields to that pod, whose revision is the
// argument "turn". A yield to an older revision counts as a failed turn of this pod's revision. If
// "to" is empty, and the hold is a turn whose revision is not proven, the
// successor is the pod that yielded for the turn. The holder of a turn may itself yield to a third
// pod. If the third pod's turn fails, the slot also goes back to the pod that yielded first.
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
	case to != "" && p.Revision.NewerThan(turn):
		r = r.counted(p.Revision)
	case to != "" && turn.Valid():
		r = r.counted(turn)
	case to == "" && inTurn:
		to = s.Rollout.Yielder
	}
	return r, to
}

// Deleted returns the wish of the successor that the release of a deleted pod names. The result is
// the zero value if the deleted pod has no revision, if the slot is paused, or if no pod that wishes
// for the slot may have it now. The wish of a pod that has not answered may be days old, so that pod would only
// delay the others.
func (p Pod) Deleted(now time.Duration, h HolderFacts) api.Word {
	if !p.Revision.Valid() || h.Paused {
		return api.Word{}
	}
	h.Wishes = slices.DeleteFunc(slices.Clone(h.Wishes), func(w api.Word) bool { return slices.Contains(h.Unanswered, w.Identity) })
	return p.wished(now, h)
}
