// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"time"

	"github.com/metaparticle-io/metaparticle/agent/instant"
)

// Stage is the stage of a claim.
type Stage int

const (
	// Waiting means that the claim is a standby's, or that its campaign is under way.
	Waiting Stage = iota
	// Held means that every slot that the claim needs is held.
	Held
	// Done means that a stopped claim has nothing left to release.
	Done
)

// Claim decides about the Leases of one claim.
type Claim struct {
	need     need
	stage    Stage
	campaign campaign
	handback handback
	// stopping reports that the claim is to end. leaveBy is the instant by which every
	// slot that the claim held has expired. Then nothing is left to release.
	stopping bool
	leaveBy  time.Duration
}

// New returns the claim of an agent process that begins now, and has seen nothing yet.
func New(c Config, now time.Duration) *Claim {
	shared := &terms{Config: c}
	claim := &Claim{need: need{terms: shared, began: now}}
	for _, name := range c.Slots {
		claim.need.slots = append(claim.need.slots, &slot{terms: shared, name: name})
	}
	return claim
}

// Next returns what to do now, and the instant of the next decision if no answer comes
// before it.
func (c *Claim) Next(now time.Duration, f Facts) (actions []Action, wake time.Duration) {
	p := &plan{now: now, facts: f, wake: instant.Never}
	switch c.stage {
	case Waiting:
		c.wait(p)
	case Held:
		c.keep(p)
	case Done:
	}
	return append(c.need.slots.endedLooks(), p.actions...), p.wake
}

// Stop ends the claim. The claim begins no further hold, and releases the slots for
// which there is proof.
func (c *Claim) Stop(now time.Duration) {
	c.stopping = true
	c.leaveBy = max(c.leaveBy, now+c.need.Self.Budget.Duration)
}

// Parting describes how a claim lets go of a hold.
type Parting struct {
	// GiveBack reports that the claim first releases all slots of the hold, then leaves
	// the other pods the head start, and only then competes.
	GiveBack  bool
	HeadStart time.Duration
	// Successor is the identity of the pod that the releases name; empty for none. The
	// other standbys, and this pod, leave that pod a head start.
	Successor string
}

// LetGo ends a hold, and the claim waits again. The claim releases the slots if the
// caller has proof that every child is dead.
func (c *Claim) LetGo(now time.Duration, part Parting) {
	c.handback = handback{due: part.GiveBack, headStart: part.HeadStart, successor: part.Successor}
	if part.Successor != "" {
		c.handback.headStart += successorsHeadStart
	}
	for _, s := range c.need.slots {
		if s.held != nil {
			c.leaveBy = max(c.leaveBy, s.held.ExpiresAt())
		}
	}
	c.need.slots.drop(now)
	c.campaign, c.stage = campaign{}, Waiting
}

// Leapt notes that the wall clock leapt, and returns how many leaps there were. The
// claim renews at once: a pause of the machine may have outlasted the Lease.
func (c *Claim) Leapt(now time.Duration) int {
	c.need.leaps++
	for _, s := range c.need.slots {
		// Each shim of the pod reports the same leap, so one attempt answers all
		// reports.
		if s.leaptAt == 0 || now >= s.leaptAt+c.need.Self.Budget.Retry {
			s.leaptAt, s.tryAt = now, now
		}
	}
	return c.need.leaps
}
