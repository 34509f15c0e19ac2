// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"cmp"
	"fmt"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
)

// These are the reasons in the readiness condition of a standby that must not be Ready.
const (
	reasonAsks   = api.ReasonAsksForItsTurn
	reasonWaits  = api.ReasonWaitsForItsTurn
	reasonInTurn = api.ReasonInTurn
)

// StandbyFacts has the facts, beside the [Slot], on which the decision about a standby depends.
type StandbyFacts struct {
	// Whole reports that a grant would start the whole application: no gated container lacks its image.
	Whole bool
	// Failed reports that the last turn of this pod failed, which an earlier agent process may have begun.
	Failed bool
	// Preferred reports that this pod is preferred. It is Ready since ReadySince; zero while it is not.
	Preferred  bool
	ReadySince time.Duration
	// Failures is the number of holds of this agent process in a row that a failure of the application, or of its
	// node's network, has ended ([HolderFacts.Failures]).
	Failures int
	// Due is the first instant of the present hold at which the holder would yield to this pod; zero before.
	Due time.Duration
}

// StandbyDecision is the decision about a standby.
type StandbyDecision struct {
	// NotReady reports that the standby must not be Ready, so that a rollout does not count the pod, and Ready
	// that it stays Ready even if the holder does not serve yet. Otherwise it is Ready while the holder serves.
	Ready, NotReady bool
	Reason, Message string
	// TakeFrom is the instant from which the pod may take the slot, if it is free then.
	TakeFrom time.Duration
	// Wish is the pod's wish for the slot; empty for none. Due reports that the holder would yield to the pod.
	Wish api.Say
	Due  bool
	// Failed reports that the turn of the pod has failed, so the pod gives the slot back.
	Failed bool
	// Wake is the instant of the next decision, unless the agent sees a change before that.
	Wake time.Duration
}

// Standby returns the decision about a standby that sees the slot s. The argument "w" has
// the other facts. Nothing has shown that a revision newer than the proven one serves.
func (p Pod) Standby(now time.Duration, s Slot, w StandbyFacts) StandbyDecision {
	c, standing := &clock{now, pace.Never}, StandbyDecision{}
	free, unproven := s.Holder == "" || now >= s.FreeAt, p.Revision.NewerThan(s.Rollout.Proven)
	switch {
	case !p.Revision.Valid() || !s.Known:
		return StandbyDecision{Wake: pace.Never}
	case free && unproven:
		standing = standing.notReady(reasonWaits, p.name()+" has not served yet, and nobody holds the slot")
	case free:
	case s.Holder == p.Identity && s.Rollout.InTurn(s.Hold):
		// The hold has ended, but its Lease is not released yet. A turn that this process began goes on once the
		// pod holds again, for example after an outage of the API server.
		standing.Failed = s.Earlier
		standing = standing.notReady(reasonInTurn, p.turnOf(s.Rollout)+" has ended before it was proven")
	case s.Holder == p.Identity && unproven:
		standing = standing.notReady(reasonWaits, p.name()+" has ended before it was proven")
	case s.Holder != p.Identity && s.Hold != "" && s.Rollout.Hold == s.Hold && s.Rollout.Yields != "":
		standing = p.behind(c, standing, s, w)
	}
	standing.TakeFrom, standing.Wake = p.takeFrom(s), c.wake
	return standing
}

// takeFrom returns the instant from which the pod may take a free slot; zero means at once. A pod whose revision
// is newer than the proven one lets the pods of the proven revision go first, unless the release names it.
func (p Pod) takeFrom(s Slot) time.Duration {
	named, from := s.Holder == "" && s.Successor == p.Identity, s.FreeAt
	if s.Holder == "" && s.Since > 0 {
		from = min(from, s.Since) // another client's write after the release must not delay the pod
	}
	switch {
	case named || s.FreeAt == pace.Never || !p.Revision.NewerThan(s.Rollout.Proven):
		return 0
	case s.Rollout.Of(p.Revision).Count == 0:
		return from + oldFirst
	}
	return from + LastResort
}

// behind returns the decision about a standby if the agent of the present hold wrote the [Rollout].
func (p Pod) behind(c *clock, to StandbyDecision, s Slot, w StandbyFacts) StandbyDecision {
	holder := api.PodOf(s.Holder)
	switch {
	case p.Revision.Same(s.Revision) && s.Rollout.Unproven(s.Hold, p.Revision):
		return to.notReady(reasonWaits, fmt.Sprintf("%s has %s", holder, p.holdFor(s.Rollout, s.Hold)))
	case p.Revision.NewerThan(s.Revision):
		return p.newer(c, to, s, w)
	case s.Rollout.Reclaimed(s.Hold, s.Revision, p.Revision):
		if w.Whole { // the holder yields only if its application does not begin to serve in time
			to.Wish = api.WantsBack
		}
	case p.Revision.Same(s.Revision):
		if p.wishesAsPreferred(c, s, w) {
			to.Wish = api.WantsPreferred
		}
	case s.Revision.NewerThan(p.Revision) && p.Revision.NewerThan(s.Rollout.Proven):
		return to.notReady(reasonWaits, p.name()+" has not served yet, and "+holder+" holds the slot")
	case s.Revision.NewerThan(p.Revision) && s.Rollout.InTurn(s.Hold):
		// The old pods stay Ready, because a strict controller deletes old pods that are not Ready.
		// A deleted pod could not take the slot back after a failed turn.
		to.Ready = !c.passed(s.Since + longestStartup + p.MinReady)
	}
	return to
}

// newer returns the decision about a standby whose revision is newer than the holder's.
func (p Pod) newer(c *clock, to StandbyDecision, s Slot, w StandbyFacts) StandbyDecision {
	holder, turns := api.PodOf(s.Holder), s.Rollout.Of(p.Revision)
	switch {
	case s.Rollout.Yields == api.YieldsNot:
		return to.notReady(reasonWaits, holder+" holds the slot, which is paused")
	case !turns.Next.IsZero():
		return to.notReady(reasonWaits, fmt.Sprintf("%s failed; turn %d comes at %s", p.turnOf(s.Rollout), turns.Count+1,
			turns.Next.UTC().Format(time.RFC3339)))
	case s.Rollout.Yields == api.YieldsLater:
		return to.notReady(reasonWaits, fmt.Sprintf("%s yields to %s once it has served for %v", holder, p.name(), api.TurnRest))
	case !w.Whole:
		return to.notReady(reasonWaits, "not every gated container waits for the slot, so "+p.name()+" does not ask "+holder+" yet")
	}
	to.Due = true
	if w.Failed && !c.passed(cmp.Or(w.Due, c.now)+elsewhere) {
		return to.notReady(reasonWaits, "another pod of "+p.name()+" may ask "+holder+" first")
	}
	to.Wish = api.WantsNewer
	return to.notReady(reasonAsks, fmt.Sprintf("asks %s for turn %d of %s", holder, turns.Count+1, p.name()))
}

// wishesAsPreferred reports whether a standby of the holder's revision wishes for the slot because it is
// preferred: once it has been Ready for [api.PreferSettled], unless its application was the last to fail. After each failure
// of its application that time is twice as long.
func (p Pod) wishesAsPreferred(c *clock, s Slot, w StandbyFacts) bool {
	return s.Rollout.Prefers && w.Preferred && w.Whole && w.ReadySince != 0 && s.Rollout.Hung != p.Identity &&
		c.passed(w.ReadySince+api.PreferSettled<<min(w.Failures, 6))
}

func (s StandbyDecision) notReady(reason, message string) StandbyDecision {
	s.NotReady, s.Reason, s.Message = true, reason, message
	return s
}

func (p Pod) name() string { return fmt.Sprintf("revision %d", p.Revision.Number) }

// turnOf describes the last turn of the pod's revision for people.
func (p Pod) turnOf(r api.Rollout) string {
	return fmt.Sprintf("turn %d of %s", max(1, r.Of(p.Revision).Count), p.name())
}

// holdFor describes for people the hold of a pod whose revision is not proven.
func (p Pod) holdFor(r api.Rollout, hold string) string {
	if r.InTurn(hold) {
		return p.turnOf(r)
	}
	return "the slot for " + p.name() + ", which has not served yet"
}
