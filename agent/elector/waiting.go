// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package elector

import (
	"fmt"
	"slices"
)

// wait adds the due actions of a waiting claim to the plan.
func (c *claim) wait(p *plan) {
	c.beginHeadStart(p)
	p.successor = c.handback.Successor
	p.releases = c.handback.GiveBack && (c.need.slots.mineProven(p.facts) || c.need.slots.requested())
	c.need.makeSure(p)
	if resumed, ok := c.need.resumable(p.facts); ok {
		c.campaign, c.handback = resumed, handback{}
		c.run(p)
	} else if next, ok := c.nextCampaign(p); ok {
		c.campaign = next
		c.run(p)
		if c.need.Readers > 0 {
			// An acquiring write whose answer was lost may have taken a slot that the campaign does
			// not need. The claim now releases such a slot.
			c.need.slots.except(next.slots).giveBack(p)
		}
	} else {
		c.need.slots.giveBack(p)
	}
	switch {
	case c.stage == Held:
	case c.finished(p):
		c.stage = Done
	case p.facts.Settled:
		c.need.slots.endLooks(p)
	default:
		c.need.widen(p)
		inView := c.need.inView(p.facts)
		inView.lookAll(p)
		c.need.slots.except(inView).endLooks(p)
	}
}

// finished reports whether a stopped claim has nothing left to do. While a child is alive, or the
// pod still forwards, the result is false. Otherwise the result is true once every Lease that the
// claim held has expired. The result is true earlier if no request is unanswered, and the claim has
// no slot left to release.
func (c *claim) finished(p *plan) bool {
	if !c.stopping || p.facts.Alive || p.facts.Lingers {
		return false
	}
	if p.now >= c.expiredBy {
		return true
	}
	p.wakeAt(c.expiredBy)
	return !c.need.slots.requested() && !c.need.slots.unread() && !c.need.slots.mineProven(p.facts)
}

// beginHeadStart begins the head start of the other pods once all slots of the last hold are
// released. If a later release names this pod, the head start ends at once.
func (c *claim) beginHeadStart(p *plan) {
	if !c.handback.GiveBack && c.need.slots.named() {
		c.handback = handback{}
		return
	}
	if !c.mayCompete(p.facts) || !c.handback.GiveBack || c.need.slots.mineProven(p.facts) {
		return
	}
	next := handback{competeAt: c.handback.competeAt}
	if c.handback.HeadStart > 0 {
		next.competeAt = p.now + c.handback.HeadStart
	}
	c.handback = next
}

// mayCompete reports whether this pod may begin a hold. A stopped claim may not, and neither
// may a pod with a child of an earlier hold.
func (c *claim) mayCompete(f Facts) bool { return f.Compete && !f.Alive && !c.stopping }

// Slotless replaces the number of each hold without slots. So a child that an earlier agent process
// started belongs to the present hold, too.
const Slotless = "slotless"

// nextCampaign returns the campaign to continue or to begin; false if this pod does not compete
// now. A campaign keeps its number while it needs the same slots, and has given up none of them.
func (c *claim) nextCampaign(p *plan) (campaign, bool) {
	if !c.mayCompete(p.facts) || c.handback.GiveBack {
		return campaign{}, false
	}
	if p.now < c.handback.competeAt {
		p.wakeAt(c.handback.competeAt)
		return campaign{}, false
	}
	if c.need.unwanted(c.campaign, p.facts) {
		c.abandon(p, handback{Parting: Parting{GiveBack: true}})
		return campaign{}, false
	}
	slots := c.need.candidates(p, c.campaign)
	if len(slots) == 0 && len(c.need.slots) > 0 {
		return campaign{}, false
	}
	if c.campaign.hold != "" && !c.campaign.resumed && slices.Equal(slots, c.campaign.slots) {
		return c.campaign, true
	}
	next := campaign{hold: fmt.Sprintf("%016x", c.need.Random.Uint64()), slots: slots, since: p.now, writes: p.facts.Writes}
	if len(slots) == 0 {
		next.hold = Slotless
	}
	if c.need.Any {
		c.need.limitProofs(p, next.hold)
	}
	return next, true
}

// run continues the campaign. The claim is held once every slot is held. The campaign acquires the
// slots in order, and keeps a slot only while the pod holds all earlier slots.
func (c *claim) run(p *plan) {
	for i, s := range c.campaign.slots {
		if s.held == nil {
			c.campaign.find(p, s)
		}
		if s.held != nil {
			if s.lost != nil || s.held.ID() != c.campaign.hold || p.now >= s.held.DrainAt() {
				c.abandon(p, c.handback)
				return
			}
			c.campaign.since = max(c.campaign.since, s.obtainedAt)
			p.wakeAt(s.held.DrainAt())
			s.renew(p, s.held.Record().Profile)
			continue
		}
		if until := c.campaign.patientUntil(s); i > 0 && p.now >= until {
			p.add(Action{Kind: StandBack, slot: s, Hold: c.campaign.hold})
			c.abandon(p, handback{Parting: Parting{GiveBack: true, HeadStart: min(c.need.Self.Budget.Renew, standsAside)}})
			return
		} else if i > 0 {
			p.wakeAt(until)
		}
		if !c.campaign.take(p, s) {
			c.campaign.slots[i+1:].giveBack(p)
		}
		return
	}
	c.stage = Held
}

// abandon ends the campaign, and drops the slots that the campaign has acquired so far. Unless they
// must be given back first, a later campaign may acquire these slots again. Otherwise the claim
// releases these slots once no child of their hold can be alive.
func (c *claim) abandon(p *plan, left handback) {
	c.need.slots.drop(p.now)
	c.campaign, c.handback = campaign{}, left
	p.wakeAt(p.now)
}

// standsAside bounds the time for which a pod that gave its slots back does not compete, because it could
// not acquire the next slot. With a lease of an hour, the time between two renewals is ten minutes. If no
// other pod wants the slots, they would stay free for all of that time. Without a watch, a standby reads
// each Lease within [slowest] and the time of an answer.
const standsAside = 2 * slowest
