// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
)

// prefersNow reports whether the holder yields to a preferred pod now. It does so if it is not
// preferred itself, has served for [Settled], and no rollout is under way. Nobody has waited for a
// preference while the application does not serve: then [HolderFacts.YieldAfter] decides.
func (p Pod) prefersNow(now time.Duration, h HolderFacts, r Rollout) bool {
	wished := func(w api.Word) bool {
		return w.Revision.NewerThan(p.Revision) && !slices.Contains(h.Unanswered, w.Identity)
	}
	tried := func(t Turns) bool { return t.Revision.NewerThan(p.Revision) && !t.Next.IsZero() }
	return h.Prefers && !h.Paused && h.passed(now, Settled) && p.Revision.Same(r.Proven) &&
		!slices.ContainsFunc(h.Wishes, wished) && !slices.ContainsFunc(r.Turns, tried)
}

// yieldsToPreferred reports whether the holder yields to this preferred pod.
func (p Pod) yieldsToPreferred(h HolderFacts, w api.Word) bool {
	return h.Rollout.Prefers && w.Revision.Same(p.Revision) && w.Identity != h.Rollout.Hung
}

// preferred returns the decision about a standby of the holder's revision. A preferred standby wishes
// for the slot once it has been Ready for [Settled], unless its own application was the last to hang. After
// each hang of its application that time is twice as long.
func (p Pod) preferred(now time.Duration, to StandbyDecision, s Slot, w StandbyFacts) StandbyDecision {
	from := w.ReadySince + Settled<<min(w.Hangs, 6)
	switch {
	case !s.Rollout.Prefers || !w.Preferred || !w.Whole || w.ReadySince == 0 || s.Rollout.Hung == p.Identity:
	case now < from:
		to.Wake = from
	default:
		to.Wish = api.WantsPreferred
	}
	return to
}

// hangsAt returns the instant at which the hold ends because its application hangs: it has served, and
// has failed its probes for the time [HolderFacts.YieldAfter]. The first such end comes at the earliest a minute
// after the beginning of the hold, and later ones come later ([hangWait]). An application that
// has served for [Forget] before it hangs begins anew. Package turn decides otherwise about a turn.
func (h HolderFacts) hangsAt() time.Duration {
	if h.YieldAfter == 0 || h.Failing == 0 || h.Paused || h.Alone || h.Rollout.inTurn(h.ID) {
		return pace.Never
	}
	return max(h.Failing+h.YieldAfter, h.Since+hangWait(h.hangs()))
}

// hangs returns the number of holds whose application hung, before this one.
func (h HolderFacts) hangs() int {
	if h.Serving != 0 && h.Failing-h.Serving >= Forget {
		return 0
	}
	return h.Rollout.Hangs
}

// Hung returns the rollout of a hold that ends because its application hangs.
func (p Pod) Hung(h HolderFacts) Rollout {
	r := h.Rollout.lasting()
	r.Hangs, r.Hung = min(h.hangs()+1, mostTurns), p.Identity
	return r
}
