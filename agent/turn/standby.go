// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"fmt"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
)

// Ruling is the decision about a standby's readiness.
type Ruling int

const (
	// Free means that turns do not decide: the standby is Ready while the holder serves.
	Free Ruling = iota
	// Ready means that the standby stays Ready even if the holder does not serve yet.
	Ready
	// NotReady means that the standby is not Ready, so that a rollout does not count the pod.
	NotReady
)

// These are the reasons in the readiness condition of a standby whose Ruling is [NotReady].
const (
	reasonAsks   = "AsksForItsTurn"
	reasonWaits  = api.ReasonWaitsForItsTurn
	reasonInTurn = api.ReasonInTurn
)

// StandbyFacts has facts on which the decision about a standby depends. The decision also depends on
// the [Slot].
type StandbyFacts struct {
	// Whole reports that a grant would start the whole application. Whole is false if, for
	// example, a gated container lacks its image.
	Whole bool
	// Failed reports that the last turn of this pod failed. An earlier agent process may have begun
	// that turn.
	Failed bool
	// Preferred reports that this pod is preferred. ReadySince is the instant since which this pod is
	// Ready; zero while it is not.
	Preferred  bool
	ReadySince time.Duration
	// Due is the first instant of the present hold at which the holder would yield to this pod;
	// zero before that instant.
	Due time.Duration
}

// StandbyDecision is the decision about a standby.
type StandbyDecision struct {
	Ruling          Ruling
	Reason, Message string
	// TakeFrom is the instant from which the pod may take the slot, if it is free then.
	TakeFrom time.Duration
	// Wish is the pod's wish for the slot; empty without a wish. Due reports that the holder would
	// yield to the pod.
	Wish api.Say
	Due  bool
	// Failed reports that the turn of the pod has failed, so the pod gives the slot back.
	Failed bool
	// Wake is the instant of the next decision, unless the agent sees a change before that.
	Wake time.Duration
}

// Standby returns the decision about a standby that sees the slot s. The argument "w" has
// the other facts.
func (p Pod) Standby(now time.Duration, s Slot, w StandbyFacts) StandbyDecision {
	standing := StandbyDecision{Wake: pace.Never}
	switch {
	case !p.Revision.Valid() || !s.Known:
		return standing
	case s.Holder == "" || now >= s.FreeAt:
		standing = p.beforeFree(standing, s)
	case s.Holder == p.Identity:
		standing = p.afterOwn(standing, s)
	case s.current():
		standing = p.behind(now, standing, s, w)
	}
	standing.TakeFrom = p.takeFrom(s)
	return standing
}

// takeFrom returns the instant from which the pod may take a free slot; zero means at once. A
// pod whose revision is newer than the proven one lets the pods of the proven revision go
// first. If its revision has had a turn, the pod waits longer. A pod that the release names
// does not wait.
func (p Pod) takeFrom(s Slot) time.Duration {
	named, from := s.Holder == "" && s.Successor == p.Identity, s.FreeAt
	if s.Holder == "" && s.Since > 0 {
		from = min(from, s.Since) // another client's write after the release must not delay the pod
	}
	switch {
	case named || s.FreeAt == pace.Never || !p.Revision.NewerThan(s.Rollout.Proven):
		return 0
	case s.Rollout.of(p.Revision).Count == 0:
		return from + oldFirst
	}
	return from + LastResort
}

// beforeFree decides for a slot that is free. If the pod's revision is newer than the proven
// one, the pod is not Ready, because nothing has shown yet that its revision serves.
func (p Pod) beforeFree(to StandbyDecision, s Slot) StandbyDecision {
	if !p.Revision.NewerThan(s.Rollout.Proven) {
		return to
	}
	return to.notReady(reasonWaits, p.name()+" has not served yet, and nobody holds the slot")
}

// afterOwn decides for a pod whose hold has ended, but whose Lease is not released yet. If the
// pod's revision is newer than the proven one, the pod must not be Ready. A turn that an earlier
// agent process began counts as failed. A turn that this process began goes on once the pod holds
// again, for example after an outage of the API server.
func (p Pod) afterOwn(to StandbyDecision, s Slot) StandbyDecision {
	switch {
	case s.Rollout.inTurn(s.Hold):
		to.Failed = s.Earlier
		return to.notReady(reasonInTurn, p.turnOf(s.Rollout)+" has ended before it was proven")
	case p.Revision.NewerThan(s.Rollout.Proven):
		return to.notReady(reasonWaits, p.name()+" has ended before it was proven")
	}
	return to
}

// behind returns the decision about a standby if the holder's agent writes a [Rollout].
func (p Pod) behind(now time.Duration, to StandbyDecision, s Slot, w StandbyFacts) StandbyDecision {
	holder := api.PodOf(s.Holder)
	switch {
	case p.Revision.Same(s.Revision) && s.Rollout.unproven(s.Hold, p.Revision):
		return to.notReady(reasonWaits, fmt.Sprintf("%s has %s", holder, p.holdFor(s.Rollout, s.Hold)))
	case p.Revision.NewerThan(s.Revision):
		return p.newer(now, to, s, w)
	case s.Rollout.reclaimed(s.Hold, s.Revision, p.Revision):
		if w.Whole { // the holder yields only if its application does not begin to serve in time
			to.Wish = api.WantsBack
		}
	case p.Revision.Same(s.Revision):
		return p.preferred(now, to, s, w)
	case s.Revision.NewerThan(p.Revision) && s.Rollout.inTurn(s.Hold):
		if p.Revision.NewerThan(s.Rollout.Proven) {
			return to.notReady(reasonWaits, p.name()+" has not served yet, and "+holder+" has its turn")
		}
		// The old pods stay Ready, because a strict controller deletes old pods that are not Ready.
		// A deleted pod could not take the slot back after a failed turn.
		if until := s.Since + longestStartup + p.MinReady; now < until {
			to.Ruling, to.Wake = Ready, until
		}
	}
	return to
}

// newer returns the decision about a standby whose revision is newer than the holder's.
func (p Pod) newer(now time.Duration, to StandbyDecision, s Slot, w StandbyFacts) StandbyDecision {
	holder, turns := api.PodOf(s.Holder), s.Rollout.of(p.Revision)
	switch {
	case s.Rollout.Yields == Not:
		return to.notReady(reasonWaits, holder+" holds the slot, which is paused")
	case !turns.Next.IsZero():
		return to.notReady(reasonWaits, fmt.Sprintf("%s failed; turn %d comes at %s", p.turnOf(s.Rollout), turns.Count+1,
			turns.Next.UTC().Format(time.RFC3339)))
	case s.Rollout.Yields == Later:
		return to.notReady(reasonWaits, fmt.Sprintf("%s yields to %s once it has served for %v", holder, p.name(), Rest))
	case !w.Whole:
		return to.notReady(reasonWaits, "not every gated container waits for the slot, so "+p.name()+" does not ask "+holder+" yet")
	}
	to.Due = true
	if from := w.Due + elsewhere; w.Failed && (w.Due == 0 || now < from) {
		if w.Due == 0 {
			from = now + elsewhere
		}
		to.Wake = from
		return to.notReady(reasonWaits, "another pod of "+p.name()+" may ask "+holder+" first")
	}
	to.Wish = api.WantsNewer
	return to.notReady(reasonAsks, fmt.Sprintf("asks %s for turn %d of %s", holder, turns.Count+1, p.name()))
}

func (s StandbyDecision) notReady(reason, message string) StandbyDecision {
	s.Ruling, s.Reason, s.Message = NotReady, reason, message
	return s
}

// name returns the name of the pod's revision for people.
func (p Pod) name() string { return fmt.Sprintf("revision %d", p.Revision.Number) }

// turnOf describes the last turn of the pod's revision for people.
func (p Pod) turnOf(r Rollout) string {
	return fmt.Sprintf("turn %d of %s", max(1, r.of(p.Revision).Count), p.name())
}

// holdFor describes for people the hold of a pod whose revision is not proven.
func (p Pod) holdFor(r Rollout, hold string) string {
	if r.inTurn(hold) {
		return p.turnOf(r)
	}
	return "the slot for " + p.name() + ", which has not served yet"
}
