// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package elector

import (
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
)

// Stage is a stage in the life of a claim.
type Stage int

const (
	// Waiting means that the pod is a standby, or that the campaign is under way.
	Waiting Stage = iota
	// Held means that the pod holds every slot that the claim needs.
	Held
	// Done means that a stopped claim has nothing left to release.
	Done
)

// claim decides about the Leases of the pod's claim.
type claim struct {
	need     need
	stage    Stage
	campaign campaign
	handback handback
	// stopping reports that the claim is about to end. The field expiredBy is the instant by
	// which every slot that the claim held has expired, so nothing is left to release then.
	stopping  bool
	expiredBy time.Duration
	// tidied is the instant at which a hold last ended the look of a slot that the hold does not need.
	tidied time.Duration
}

// fewLooks is the number of slots at which a pod's first agent process looks first. Claims that
// need all of their slots look at all slots at once.
const fewLooks = 4

// newClaim returns a claim for an agent process that begins now, and has seen no Lease yet.
func newClaim(c Claim, now time.Duration) *claim {
	// In one burst, the claim may look at each slot twice. Each look takes a read and a watch.
	common := &shared{Claim: c, looks: lookBound{pace: newPace(4 * len(c.Slots))}}
	if c.First && c.Any && len(c.Slots) > fewLooks {
		common.width, common.from = fewLooks, int(c.Random.Uint64()%uint64(len(c.Slots))) //nolint:gosec // less than len(c.Slots)
	}
	made := &claim{need: need{shared: common, began: now}}
	for _, name := range c.Slots {
		made.need.slots = append(made.need.slots, &slot{shared: common, name: name, view: lease.Observer{Own: c.Self.Budget, ID: api.SupporterID(c.Self.Identity, c.Self.Key)}, pace: newPace(0)})
	}
	return made
}

// next returns the actions that are due now, and the instant at which the caller must call next
// again. The caller also calls next after each answer that comes earlier.
func (c *claim) next(now time.Duration, f Facts) (actions []Action, wake time.Duration) {
	p := &plan{now: now, facts: f, wake: pace.Never}
	switch c.stage {
	case Waiting:
		c.wait(p)
	case Held:
		c.keep(p)
	case Done:
	}
	return append(c.need.slots.endedLooks(), p.actions...), p.wake
}

// Stop ends the claim. The claim begins no further hold, and releases its slots as soon as there
// is proof that no child of their hold is alive.
func (c *claim) Stop(now time.Duration) {
	c.stopping = true
	c.expiredBy = max(c.expiredBy, now+c.need.Self.Budget.Longest())
}

// Parting describes how a claim lets go of a hold.
type Parting struct {
	// GiveBack reports that the claim releases all slots of the hold before this pod competes
	// again. In the time HeadStart only other pods compete. That time begins once the slots are
	// released and this pod could begin a hold. Without GiveBack, HeadStart has no effect.
	GiveBack  bool
	HeadStart time.Duration
	// Successor is the identity of the pod that the releases name; empty for none. All other
	// pods give that pod a head start.
	Successor string
}

// LetGo ends the claim's hold, and the claim waits again. The claim releases the slots once the
// caller has proof that every child is dead.
func (c *claim) LetGo(now time.Duration, part Parting) {
	if part.Successor != "" {
		part.HeadStart += successorsHeadStart
	}
	c.handback = handback{Parting: part}
	for _, s := range c.need.slots {
		if s.held != nil {
			c.expiredBy = max(c.expiredBy, s.held.ExpiresAt())
		}
	}
	c.need.slots.drop(now)
	c.campaign, c.stage = campaign{}, Waiting
}

// Leapt remembers a leap of the wall clock, and returns the number of leaps so far. The claim
// renews at once, because the Lease may have expired while the machine was paused.
func (c *claim) Leapt(now time.Duration) int {
	c.need.leaps++
	for _, s := range c.need.slots {
		// Each shim of the pod reports the same leap, so one attempt within Budget.Retry is
		// enough.
		if s.leaptAt == 0 || now >= s.leaptAt+c.need.Self.Budget.Retry {
			s.leaptAt, s.tryAt = now, now
		}
	}
	return c.need.leaps
}

// Claim has the slots of a claim, and the pod that claims them.
type Claim struct {
	api.Need
	// First reports that no earlier agent process has competed with the pod's volume. So no child of
	// this machine has a slot, and a claim with Any may acquire a slot before the claim has read all
	// Leases.
	First bool
	// Self describes the pod that claims.
	Self lease.Self
	// OwnKernel reports that the pod may run in a virtual machine of its own. An earlier virtual
	// machine of the pod may still run. So a Lease with another boot id does not prove that the
	// children of that boot are dead.
	OwnKernel bool
	// OwnProofs reports that [Outcome.Proven] is true only for holds that the present agent
	// process began. So a later process never wrongly takes an unproven hold of this process
	// for a proven one.
	OwnProofs bool
	// Random is the only source of randomness.
	Random interface{ Uint64() uint64 }
}

// keep adds the due actions of a held claim to the plan.
func (c *claim) keep(p *plan) {
	if p.facts.Renew {
		for _, s := range c.campaign.slots {
			s.renew(p, p.facts.Profile)
		}
	}
	if p.facts.Guard {
		for _, s := range c.campaign.slots {
			s.guard(p)
		}
	}
	c.tidy(p)
}

// tidy ends the looks of the slots that the hold does not need. If many looks ended at once, the API
// server would be busy with the ends of their watches when the pod starts the application. So the time
// [apart] or more lies between the ends of two looks.
func (c *claim) tidy(p *plan) {
	for _, s := range c.need.slots.except(c.campaign.slots).settle(p) {
		if at := c.tidied + apart; p.now < at {
			p.wakeAt(at)
			return
		}
		c.tidied = p.now
		s.unsee(p.now)
	}
}

// except returns the slots that are not among the needed ones.
func (all slots) except(needed slots) slots {
	return slices.DeleteFunc(slices.Clone(all), func(s *slot) bool { return slices.Contains(needed, s) })
}

// endLooks ends the looks of slots that the pod does not need.
func (all slots) endLooks(p *plan) {
	for _, s := range all.settle(p) {
		s.unsee(p.now)
	}
}

// settle gives back slots that the pod does not need, and returns those slots whose looks can end. An
// acquiring write whose answer was lost may have taken a slot. The claim first reads the Lease of
// such a slot, and then releases the slot.
func (all slots) settle(p *plan) (seen slots) {
	for _, s := range all {
		s.giveBack(p)
		r, ok := s.view.Record()
		switch {
		case s.requests.unread != "" || ok && s.proven(p.facts, r):
			slots{s}.lookAll(p)
		case s.look.on || !s.view.IsBlind():
			seen = append(seen, s)
		}
	}
	return seen
}
