// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package claim

import "slices"

// keep adds the due actions of a held claim to the plan.
func (c *Claim) keep(p *plan) {
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

// tidy ends the looks of the slots that the hold does not need.
func (c *Claim) tidy(p *plan) {
	c.need.slots.except(c.campaign.slots).endLooks(p)
}

// except returns the slots that are not among the needed ones.
func (all slots) except(needed slots) slots {
	return slices.DeleteFunc(slices.Clone(all), func(s *slot) bool { return slices.Contains(needed, s) })
}

// endLooks ends the looks of slots that the pod does not need. An acquiring write whose answer
// was lost may have taken a slot. The claim first reads the Lease of such a slot, and then
// releases the slot.
func (all slots) endLooks(p *plan) {
	for _, s := range all {
		s.giveBack(p)
		r, ok := s.view.Record()
		switch {
		case s.unread != "" || ok && s.proven(p.facts, r):
			slots{s}.lookAll(p)
		case s.look.on || !s.view.IsBlind():
			unsee(s, p.now)
		}
	}
}
