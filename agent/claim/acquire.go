// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"time"

	"github.com/metaparticle-io/metaparticle/agent/lease"
)

// run goes on with the campaign. The claim is held when every slot is. The campaign
// acquires, or keeps, no slot before those that come earlier in the order.
func (c *Claim) run(p *plan) {
	for i, s := range c.campaign.slots {
		if s.held != nil {
			if s.lost != nil || s.held.ID() != c.campaign.hold || p.now >= s.held.DrainAt() {
				c.abandon(p)
				return
			}
			p.wakeAt(s.held.DrainAt())
			c.renew(p, s, s.held.Record().Notes)
			continue
		}
		if until := c.patientUntil(); i > 0 && p.now >= until {
			c.standBack(p, s)
			return
		} else if i > 0 {
			p.wakeAt(until)
		}
		if !c.take(p, s) {
			c.giveBack(p, c.campaign.slots[i+1:])
		}
		return
	}
	c.stage = Held
}

// take sends the acquiring write of one slot when its time has come; it reports false if
// the slot is not free.
func (c *Claim) take(p *plan, s *slot) bool {
	r, ok := s.view.Record()
	if !ok || s.view.IsBlind() || len(s.writing) > 0 {
		return true // an answer is on its way
	}
	if !c.campaign.resumed && !c.proven(p.facts, r) {
		if at, _ := s.view.FreeAt(c.config.Self.Budget.Duration); p.now < at {
			p.wakeAt(at)
			return false
		}
	}
	tryAt := s.pace.nextAt()
	if s.refused == r.Version {
		tryAt = max(tryAt, s.tryAt)
	}
	if p.now < tryAt {
		p.wakeAt(tryAt)
		return true
	}
	if s.refused == r.Version {
		// What was refused as old is still all there is to see: the watch is late or
		// silent.
		s.refused = ""
		s.endLook()
		s.view.Blind()
		p.wakeAt(p.now)
		return true
	}
	c.acquire(p, s, r)
	return true
}

// acquire sends the write that begins, or resumes, the hold of one slot.
func (c *Claim) acquire(p *plan, s *slot, r lease.Record) {
	self, notes := c.config.Self, p.facts.Notes
	var next lease.Record
	var err error
	if c.campaign.resumed {
		notes.Serving = r.Notes.Serving
		next, err = self.Resume(r, c.campaign.hold, c.campaign.token(s.name), notes, p.facts.Wall)
	} else {
		next, err = self.Acquire(r, c.campaign.hold, notes, p.facts.Wall)
	}
	if err != nil {
		c.lookAgain(p.now, s, 0) // the record names no object to replace
		return
	}
	c.send(p, Action{
		Kind: Acquire, slot: s, Record: next, campaign: c.campaign, Resumed: c.campaign.resumed,
		attempt: lease.Attempt{Sent: p.now, Record: next},
	}, next.Hold)
}

// abandon gives up what the campaign has acquired so far: nothing was granted, so all of
// it is released, or taken again from the first.
func (c *Claim) abandon(p *plan) {
	for _, s := range c.slots {
		if s.held != nil {
			s.drop(p.now)
		}
	}
	c.campaign = campaign{}
	p.wakeAt(p.now)
}

// patientUntil returns the instant until which slots are kept while the next cannot be
// had: a lease duration after the last of them was acquired. Another pod was faster
// there, and may be done soon, or the API server refuses the write. A hold of an earlier
// agent process is kept until its child is dead.
func (c *Claim) patientUntil() time.Duration {
	if c.campaign.resumed {
		return Never
	}
	return c.campaign.since + c.config.Self.Budget.Duration
}

// standBack gives up what the campaign has acquired, because the next slot cannot be had.
// The others have a renewal's period to take what is given back.
func (c *Claim) standBack(p *plan, missing *slot) {
	p.add(Action{Kind: StandBack, slot: missing, Hold: c.campaign.hold})
	c.handback = handback{due: true, headStart: c.config.Self.Budget.Renew}
	c.abandon(p)
}

// giveBack releases the slots that are this pod's own though no child of their hold is
// alive.
func (c *Claim) giveBack(p *plan, slots []*slot) {
	for _, s := range slots {
		if s.held != nil {
			s.drop(p.now)
		}
		r, ok := s.view.Record()
		if !ok || len(s.writing) > 0 || !c.proven(p.facts, r) {
			continue
		}
		if s.refused == r.Version && p.now < s.tryAt || p.now < max(s.look.at, s.pace.nextAt()) {
			p.wakeAt(max(s.tryAt, s.look.at, s.pace.nextAt()))
			continue
		}
		s.refused = ""
		c.release(p, s, r)
	}
}

// release sends the write that frees the slot. The caller has proof.
func (c *Claim) release(p *plan, s *slot, r lease.Record) {
	next, err := c.config.Self.Release(r, p.facts.Wall)
	if err != nil {
		c.lookAgain(p.now, s, 0) // the record names no object to replace
		return
	}
	c.send(p, Action{Kind: Release, slot: s, Record: next, Hold: r.Hold}, "")
}
