// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package elector

import "slices"

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
	for _, s := range c.need.slots.except(c.campaign.slots).giveUp(p) {
		if at := c.tidied + apart; p.now < at {
			p.wakeAt(at)
			return
		}
		c.tidied = p.now
		unsee(s, p.now)
	}
}

// except returns the slots that are not among the needed ones.
func (all slots) except(needed slots) slots {
	return slices.DeleteFunc(slices.Clone(all), func(s *slot) bool { return slices.Contains(needed, s) })
}

// endLooks ends the looks of slots that the pod does not need.
func (all slots) endLooks(p *plan) {
	for _, s := range all.giveUp(p) {
		unsee(s, p.now)
	}
}

// giveUp releases slots that the pod does not need, and returns those slots whose looks can end. An
// acquiring write whose answer was lost may have taken a slot. The claim first reads the Lease of
// such a slot, and then releases the slot.
func (all slots) giveUp(p *plan) (seen slots) {
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
