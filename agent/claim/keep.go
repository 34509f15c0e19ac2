// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"slices"

	"github.com/metaparticle-io/metaparticle/agent/lease"
)

// keep decides for a holder.
func (c *Claim) keep(p *plan) {
	if p.facts.Renew {
		for _, s := range c.campaign.slots {
			c.renew(p, s, p.facts.Notes)
		}
	}
	if p.facts.Guard {
		for _, s := range c.campaign.slots {
			c.guard(p, s)
		}
	}
	c.tidy(p)
}

// crowd bounds how many attempts are under way for one slot. They start at most
// a retry apart, also while earlier ones hang; with leases of up to 90 s a
// request times out before the bound matters.
const crowd = 8

// renew sends the renewal of one slot if it is due: a sixth of the duration
// after the last, or at once where standbys are to be told something new.
func (c *Claim) renew(p *plan, s *slot, notes lease.Notes) {
	if s.lost != nil {
		return
	}
	due := s.held.RenewAt()
	if s.reread || s.confirmed < c.leaps || !same(s.held.Record().Notes, notes) {
		due = p.now
	}
	if due = max(due, s.tryAt, s.pace.nextAt()); p.now < due {
		p.wakeAt(due)
		return
	}
	if len(s.writing) >= crowd {
		return
	}
	s.tryAt = p.now + c.jitter(c.config.Self.Budget.Retry)
	p.wakeAt(s.tryAt)
	if s.reread {
		c.send(p, Action{Kind: Read, slot: s, held: s.held, attempt: lease.Attempt{Record: s.held.Record()}}, "")
		return
	}
	attempt := s.held.Renew(p.now, p.facts.Wall, notes)
	c.send(p, Action{Kind: Renew, slot: s, held: s.held, attempt: attempt, Record: attempt.Record}, attempt.Record.Hold)
}

func same(a, b lease.Notes) bool {
	return a.Address == b.Address && a.Workload == b.Workload && a.Serving.Equal(b.Serving)
}

// guard keeps the watch of a held slot, which the claim had as a standby, and begins it
// anew where it has ended. A holder whose Lease is taken so learns it at once. Its next
// renewal would tell up to ten minutes later.
//
// While a renewal is overdue the claim begins no watch. The answer to the renewal
// tells more, and an API server that comes back has enough to do.
func (c *Claim) guard(p *plan, s *slot) {
	if overdue := s.held.RenewAt() + c.config.Self.Budget.Retry; !s.look.on && p.now < overdue {
		c.beginLook(p, s)
	}
}

// tidy ends the looks of the slots that the hold does not need. A slot that a lost write
// may have taken is first read, and released.
func (c *Claim) tidy(p *plan) {
	for _, s := range c.slots {
		if slices.Contains(c.campaign.slots, s) {
			continue
		}
		one := []*slot{s}
		c.giveBack(p, one)
		r, ok := s.view.Record()
		switch {
		case s.unread != "" || ok && c.proven(p.facts, r):
			c.lookAll(p, one)
		case s.look.on || !s.view.IsBlind():
			s.endLook()
			s.view.Blind()
		}
	}
}
