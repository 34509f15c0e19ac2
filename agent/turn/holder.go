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
	// TurnSince replaces Since for a turn that outlasts a hold, because the pod took its own slot back.
	TurnSince time.Duration
	// Resumed reports that an earlier agent process began the hold.
	Resumed bool
	// Rollout is the state of the rollout, as the Lease has it.
	Rollout api.Rollout
	// Serves reports that the application runs and passes its probes. Serving is the instant at which it last
	// began to serve; zero if it has not served in this hold.
	Serves  bool
	Serving time.Duration
	// Served reports that the application already served in this hold under an earlier agent process.
	Served bool
	// Stopped is the instant at which the application last stopped serving after at least [api.TurnProof]; zero without
	// such a stop. Failing is the instant since which an application that has served serves no longer.
	Stopped, Failing time.Duration
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
	Rollout api.Rollout
	// Message says, for people, why the pod must not be Ready yet: its revision is newer than the proven one,
	// and its application has not served for [api.TurnProof]. Empty if the pod may be Ready.
	Message string
	// To is the wish of the pod to which the holder must yield now, if that pod answers.
	To api.Word
	// Hangs reports that the application hangs, so the holder must yield to any pod that answers.
	Hangs bool
	// Failed reports that the turn has failed, so the hold must end.
	Failed bool
	// Proven reports that the holder's own revision is proven, and Starting that it is, and that its application
	// has not served yet in this hold, and still has time to begin.
	Proven, Starting bool
	// Wake is the instant of the next decision, unless the facts change before that.
	Wake time.Duration
}

// clock is the time of one decision. It learns when the decision may change without a new fact.
type clock struct{ now, wake time.Duration }

// passed reports whether the instant has come.
func (c *clock) passed(at time.Duration) bool {
	if c.now < at {
		c.wake = min(c.wake, at)
	}
	return c.now >= at
}

// Holder returns the decision about a holder. A holder without a revision leaves the rollout in
// the Lease unchanged.
func (p Pod) Holder(now time.Duration, wall time.Time, h HolderFacts) HolderDecision {
	c := &clock{now, pace.Never}
	holding := HolderDecision{Rollout: h.Rollout, Hangs: p.hung(c, h)}
	if !p.Revision.Valid() {
		holding.Wake = c.wake
		return holding
	}
	r := p.proven(c, h)
	r.Hold = h.ID
	r.Yields = p.yields(c, h)
	r = p.timed(c, wall, h, r)
	r.Prefers = p.prefersNow(c, h, r)
	h.Rollout.Prefers = r.Prefers
	holding.Rollout = r
	if r.Unproven(h.ID, p.Revision) && !h.served(c, api.TurnProof) {
		holding.Message = p.holdFor(r, h.ID)
	}
	holding.Failed = r.InTurn(h.ID) && p.failed(c, h)
	holding.Proven = p.Revision.Same(r.Proven)
	holding.Starting = holding.Proven && h.Serving == 0 && !c.passed(h.Since+p.Lasts(h.Rollout.Start()))
	if r.Yields == api.YieldsNow {
		holding.To = p.wished(c, h)
	}
	holding.Wake = c.wake
	return holding
}

// wished returns the first wish to which the holder would yield; the zero value if there is none.
func (p Pod) wished(c *clock, h HolderFacts) api.Word {
	for _, w := range h.Wishes {
		if p.yieldsTo(c, h, w) {
			return w
		}
	}
	return api.Word{}
}

// served reports whether the application has served for the span.
func (h HolderFacts) served(c *clock, span time.Duration) bool {
	return h.Serves && c.passed(h.Serving+span)
}

// proven returns the present rollout. Once the application has served for [api.TurnProof] and the controller's MinReady,
// the pod's revision is proven, and the turn is over.
func (p Pod) proven(c *clock, h HolderFacts) api.Rollout {
	r := h.Rollout
	if !h.served(c, p.provenAfter()) {
		return r
	}
	r.Yielder, r.From = "", api.Revision{}
	if r.Proven != p.Revision {
		r.Proven, r.StartMilliseconds = p.Revision, 0
		if !h.Resumed {
			r.StartMilliseconds = min(h.Serving-h.Since, api.LongestTurn).Milliseconds()
		}
	}
	if h.served(c, p.provenAfter()+api.TurnForget) {
		r = r.Forgotten(p.Revision)
	}
	return r
}

// yields returns whether the holder yields to a newer revision. If the application does not serve, no client
// loses anything, so the holder yields at once.
func (p Pod) yields(c *clock, h HolderFacts) api.Yields {
	switch {
	case h.Paused:
		return api.YieldsNot
	case h.Serves && !p.fresh(h) && !h.served(c, api.TurnRest):
		return api.YieldsLater
	}
	return api.YieldsNow
}

// fresh reports that the hold needs no [api.TurnRest] before a yield, because none has led to it: no pod wished for the slot
// before the hold, and no newer revision has had a turn. So a fix of a version that crashes again and again need not
// wait until that version serves for long.
func (p Pod) fresh(h HolderFacts) bool {
	newer := func(t api.Turns) bool { return t.Revision.NewerThan(p.Revision) }
	return h.Rollout.Moved.Wish == "" && !h.Rollout.InTurn(h.ID) && !slices.ContainsFunc(h.Rollout.Turns, newer)
}

// prefersNow reports whether the holder yields to a preferred pod now: it is not preferred itself, has served for
// [api.PreferSettled], and no rollout is under way. While it does not serve, [HolderFacts.YieldAfter] decides.
func (p Pod) prefersNow(c *clock, h HolderFacts, r api.Rollout) bool {
	wished := func(w api.Word) bool {
		return w.Revision.NewerThan(p.Revision) && !slices.Contains(h.Unanswered, w.Identity)
	}
	tried := func(t api.Turns) bool { return t.Revision.NewerThan(p.Revision) && !t.Next.IsZero() }
	return h.Prefers && !h.Paused && h.served(c, api.PreferSettled) && p.Revision.Same(r.Proven) &&
		!slices.ContainsFunc(h.Wishes, wished) && !slices.ContainsFunc(r.Turns, tried)
}

// yieldsTo reports whether the holder would yield to the pod with this wish. A newer revision must have
// waited long enough for its next turn. The wait counts from the beginning of the hold.
func (p Pod) yieldsTo(c *clock, h HolderFacts, w api.Word) bool {
	switch fails, ends := p.turnEnds(h); {
	case w.Say == api.WantsPreferred:
		return h.Rollout.Prefers && w.Revision.Same(p.Revision) && w.Identity != h.Rollout.Hung
	case h.Rollout.Reclaimed(h.ID, p.Revision, w.Revision):
		// An application that serves again and again gets as much time as in a turn. But no pod stops an
		// application while it serves, because the pod that asks may have come back late.
		return !h.Serves && c.passed(min(fails, ends))
	}
	count := h.Rollout.Of(w.Revision).Count
	from := h.Since + wait(count)
	if count > 0 && !h.Serves {
		// After a failed turn, the holder's application starts again, and gets time for its
		// start. That time is bounded, because the failed turn may have changed the data so
		// that only a newer revision can serve.
		from = max(from, h.Since+min(p.Lasts(h.Rollout.Start()), api.LongestTurn))
	}
	return w.Revision.NewerThan(p.Revision) && c.passed(from)
}

// timed returns the rollout with the times of the next turns, by the wall clock. A time that the Lease already
// has stays until the turn may begin.
func (p Pod) timed(c *clock, wall time.Time, h HolderFacts, r api.Rollout) api.Rollout {
	r.Turns = slices.Clone(r.Turns)
	for i, one := range r.Turns {
		at := h.Since + wait(one.Count)
		switch {
		case !one.Revision.NewerThan(p.Revision) || c.passed(at):
			r.Turns[i].Next = time.Time{}
		case one.Next.IsZero():
			r.Turns[i].Next = wall.Add(at - c.now).Truncate(time.Second)
		}
	}
	return r
}

// failed reports whether the turn has failed, because the application did not begin to serve in
// time. If the application began in time, the turn may go on until the revision is proven.
func (p Pod) failed(c *clock, h HolderFacts) bool {
	fails, ends := p.turnEnds(h)
	served := h.Serves && h.Serving < fails
	return !served && c.passed(fails) || c.passed(ends)
}

// proofs is the number of proofs for which a turn has time. After a short failure the application
// gets time for another proof.
const proofs = 3

// turnEnds returns the instant at which the turn fails, unless the application begins to serve before that, and
// the instant at which it fails in any case, unless the revision is proven before that. If the pod was Ready and
// then stops serving, the first time begins again, as the controller's minReadySeconds do. But an application
// that serves again and again, and never for long enough, is broken.
func (p Pod) turnEnds(h HolderFacts) (fails, ends time.Duration) {
	began, lasts := cmp.Or(h.TurnSince, h.Since), p.Lasts(h.Rollout.Start())
	return max(began, h.Stopped) + lasts, began + lasts + proofs*p.provenAfter()
}

// hung reports whether the hold must end because its application hangs: it has served, and has failed its probes
// for the time [HolderFacts.YieldAfter]; or a preference took the slot from an application that served, and this one
// does not begin to, also if this pod has taken the slot back since. Such ends come seldom ([api.HangWait]). A turn ends by itself.
func (p Pod) hung(c *clock, h HolderFacts) bool {
	at := pace.Never
	if h.YieldAfter != 0 && h.Failing != 0 {
		at = h.Failing + h.YieldAfter
	}
	if h.Serving == 0 && !h.Served && (h.Rollout.Moved.Wish == api.WantsPreferred || h.Rollout.Hung == p.Identity) {
		at = min(at, h.Since+p.Lasts(h.Rollout.Start()))
	}
	return !h.Serves && !h.Paused && !h.Alone && !h.Rollout.InTurn(h.ID) && c.passed(max(at, h.Since+api.HangWait(h.hangs())))
}

// hangs returns the number of holds whose application hung, before this one.
func (h HolderFacts) hangs() int {
	if h.lasted(h.Failing) {
		return 0
	}
	return h.Rollout.Hangs
}

// lasted reports that the application had served for [api.TurnForget] at the instant end. Then its failures count from the
// beginning.
func (h HolderFacts) lasted(end time.Duration) bool {
	return h.Serving != 0 && end-h.Serving >= api.TurnForget
}

// Failures returns the number of the pod's holds in a row that its application's failure has ended, with this one. The
// argument is the number before this hold.
func (h HolderFacts) Failures(now time.Duration, before int) int {
	if h.lasted(cmp.Or(h.Failing, now)) { // an application that served to the end has not failed: its node was cut off
		return 1
	}
	return min(before+1, api.MostTurns)
}

// Hung returns the rollout of a hold that ends because its application hangs.
func (p Pod) Hung(h HolderFacts) api.Rollout {
	r := h.Rollout.Lasting()
	r.Hangs, r.Hung = h.Failures(h.Failing, r.Hangs), p.Identity
	return r
}

// Acquired returns the rollout that the acquiring write of the hold stores, by the slot before that write. The
// hold is a turn if an older revision's release names this pod, or if this pod takes back the slot of its own
// unfinished turn.
func (p Pod) Acquired(now time.Duration, wall time.Time, s Slot, hold string) api.Rollout {
	if !p.Revision.Valid() {
		return s.Rollout
	}
	r := s.Rollout.Lasting()
	r.Hold = hold
	if s.Holder == "" || s.Holder == p.Identity {
		r.Moved = s.Rollout.Moved
	}
	named := s.Holder == "" && s.Successor == p.Identity && p.Revision.NewerThan(s.Rollout.From)
	again := s.Holder == p.Identity && s.Rollout.InTurn(s.Hold)
	if named || again {
		r.Yielder, r.From = s.Rollout.Yielder, s.Rollout.From
	}
	return p.Holder(now, wall, HolderFacts{ID: hold, Since: now, Rollout: r}).Rollout
}

// Released returns the rollout that the releasing write stores, and the successor; empty for none. The hold
// yields to the pod "to" of the revision "turn". A yield to an older revision counts as a failed turn of this
// pod's revision. Without "to", a turn gives the slot back to the pod that yielded for it. The holder of a turn
// may itself yield to a third pod. If the third pod's turn fails, the slot also goes back to the first one.
func (p Pod) Released(s Slot, to string, turn api.Revision) (r api.Rollout, successor string) {
	if !p.Revision.Valid() {
		return s.Rollout, to
	}
	r = s.Rollout.Lasting()
	inTurn := s.Rollout.InTurn(s.Hold)
	r.Yielder, r.From = p.Identity, p.Revision
	if inTurn {
		r.Yielder, r.From = s.Rollout.Yielder, s.Rollout.From
	}
	switch {
	case to != "" && p.Revision.NewerThan(turn):
		r = r.Counted(p.Revision)
	case to != "" && turn.Valid():
		r = r.Counted(turn)
	case to == "" && inTurn:
		to = s.Rollout.Yielder
	}
	return r, to
}

// Deleted returns the wish of the successor that the release of a deleted pod names; the zero value for none. The
// wish of a pod that has not answered may be days old, so that pod would only delay the others.
func (p Pod) Deleted(now time.Duration, h HolderFacts) api.Word {
	if !p.Revision.Valid() || h.Paused {
		return api.Word{}
	}
	silent := func(w api.Word) bool { return slices.Contains(h.Unanswered, w.Identity) }
	h.Wishes = slices.DeleteFunc(slices.Clone(h.Wishes), silent)
	return p.wished(&clock{now: now}, h)
}
