// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"fmt"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/lease"
)

// campaign is a hold in the making. Nothing is granted under its number before all of
// its slots are held.
type campaign struct {
	hold string
	// resumed: an earlier agent process began the hold, and a child of it runs.
	resumed bool
	// slots are those that the campaign needs, in the order of acquisition.
	slots []*slot
	// tokens are those of a resumed hold.
	tokens []Token
	// since is when the campaign began, or acquired a slot last.
	since time.Duration
}

// token returns the slot's token of a resumed hold.
func (c campaign) token(slot string) string {
	for _, t := range c.tokens {
		if t.Slot == slot {
			return t.Token
		}
	}
	return ""
}

// handback is what the claim leaves to the others after a hold.
type handback struct {
	// due: the slots of the last hold are to be released before any is taken.
	due bool
	// headStart is how long after the release the others alone compete; competeAt is
	// when that ends.
	headStart, competeAt time.Duration
}

// settleHandback notes that all slots of the last hold are released, from when on the
// head start of the others counts.
func (c *Claim) settleHandback(p *plan) {
	if !c.mayCompete(p.facts) || !c.handback.due || c.mineProven(p.facts) {
		return
	}
	next := handback{competeAt: c.handback.competeAt}
	if c.handback.headStart > 0 {
		next.competeAt = p.now + c.handback.headStart
	}
	c.handback = next
}

// mayCompete reports whether this pod may begin a hold: a stopped one begins none, nor a
// pod with a child of an earlier hold.
func (c *Claim) mayCompete(f Facts) bool { return f.Compete && !f.Alive && !c.stopping }

// nextCampaign returns the campaign that goes on, or begins; false if this pod does not
// compete. The campaign's number stays the same until a slot is given up.
func (c *Claim) nextCampaign(p *plan) (campaign, bool) {
	if !c.mayCompete(p.facts) || c.handback.due {
		return campaign{}, false
	}
	if p.now < c.handback.competeAt {
		p.wakeAt(c.handback.competeAt)
		return campaign{}, false
	}
	slots := c.candidates(p)
	if len(slots) == 0 {
		return campaign{}, false
	}
	if c.campaign.hold != "" && !c.campaign.resumed && slices.Equal(slots, c.campaign.slots) {
		return c.campaign, true
	}
	return campaign{hold: fmt.Sprintf("%016x", c.config.Random.Uint64()), slots: slots, since: p.now}, true
}

// candidates returns the slots that a campaign needs; none if it may not begin, or go on.
// A pod of several slots takes none of them before it sees all of them free: it would
// keep others from running though it cannot run itself. Once it has some, patience
// decides.
func (c *Claim) candidates(p *plan) []*slot {
	if c.config.Any {
		return c.anyOne(p)
	}
	if len(c.slots) == 1 || slices.ContainsFunc(c.slots, func(s *slot) bool { return s.held != nil }) {
		return c.slots
	}
	for _, s := range c.slots {
		if at := c.obtainableAt(p, s); p.now < at {
			p.wakeAt(at)
			return nil
		}
	}
	return c.slots
}

// obtainableAt returns the instant from which the slot may be taken, as far as is seen.
// The pod that held it counts on it still: after an outage it is to be the first to begin.
func (c *Claim) obtainableAt(p *plan, s *slot) time.Duration {
	r, ok := s.view.Record()
	duration := c.config.Self.Budget.Duration
	at, sees := s.view.FreeAt(duration)
	// Where watches are refused an agent sees one slot for moments, and never all of
	// them at one: what it read of the others within a duration has to do. Before a
	// slot is taken it is read again.
	recent := p.now < s.view.Heard()+duration
	if !sees && r.Holder != "" {
		at = s.view.ExpiresAt(duration)
	}
	switch {
	case ok && c.proven(p.facts, r):
		return p.now
	case !ok || !sees && !recent:
		return Never
	}
	return at
}

// anyOne returns the one slot for which a campaign goes: the one that it has, or has a
// write under way for; its choice while that is free; or another free one.
func (c *Claim) anyOne(p *plan) []*slot {
	for _, s := range c.slots {
		if s.held != nil || slices.Contains(c.campaign.slots, s) && len(s.writing) > 0 {
			return []*slot{s}
		}
	}
	if at := c.soleAt(p); p.now < at {
		p.wakeAt(at)
		return nil
	}
	var own, free []*slot
	for _, s := range c.slots {
		at := c.choosableAt(p, s)
		if p.now < at {
			p.wakeAt(at)
			continue
		}
		if r, _ := s.view.Record(); c.proven(p.facts, r) {
			own = append(own, s)
		}
		free = append(free, s)
	}
	switch {
	case len(own) > 0:
		return own[:1]
	case len(c.campaign.slots) == 1 && slices.Contains(free, c.campaign.slots[0]):
		return c.campaign.slots
	case len(free) == 0:
		return nil
	}
	// Standbys that choose at random collide less.
	i := int(c.config.Random.Uint64() % uint64(len(free))) //nolint:gosec // less than len(free)
	return free[i : i+1]
}

// soleAt returns the instant from which this pod can have no child under any slot. An
// earlier agent process may have had one, under a slot that was not seen yet, or whose
// Lease was made anew meanwhile: no agent has written such a record.
func (c *Claim) soleAt(p *plan) time.Duration {
	duration, at := c.config.Self.Budget.Duration, time.Duration(0)
	for _, s := range c.slots {
		switch r, ok := s.view.Record(); {
		case !ok:
			at = max(at, c.began+duration)
		case c.config.Self.Mine(r) && !c.proven(p.facts, r):
			at = max(at, s.view.ExpiresAt(duration))
		case r.Holder != "" && r.Hold == "":
			at = max(at, min(s.view.ExpiresAt(duration), c.began+duration))
		}
	}
	return at
}

// choosableAt returns the instant from which a campaign may choose the slot: it is seen
// free, no request for it is under way, and no write was refused just now.
func (c *Claim) choosableAt(p *plan, s *slot) time.Duration {
	r, ok := s.view.Record()
	at, sees := s.view.FreeAt(c.config.Self.Budget.Duration)
	switch {
	case !ok || !sees || len(s.writing) > 0:
		return Never
	case c.proven(p.facts, r):
		at = p.now
	}
	if s.refused == r.Version {
		at = max(at, s.tryAt)
	}
	return at
}

// resumable returns the campaign for a child that an earlier agent process granted, if
// every Lease that the child needs is of that very hold still.
func (c *Claim) resumable(f Facts) (campaign, bool) {
	for _, child := range f.Children {
		slots := c.slotsOf(child)
		if tokens, ok := c.tokensOf(child, slots); ok {
			return campaign{hold: child.Hold, resumed: true, slots: slots, tokens: tokens}, true
		}
	}
	return campaign{}, false
}

// slotsOf returns the slots that the child needs. A child of a claim of any one slot names
// its slot, or a Lease names its hold; otherwise it may run under each of them.
func (c *Claim) slotsOf(child Child) []*slot {
	if !c.config.Any {
		return c.slots
	}
	for _, s := range c.slots {
		r, _ := s.view.Record()
		if slices.ContainsFunc(child.Tokens, func(t Token) bool { return t.Slot == s.name }) || c.config.Self.Holds(r, child.Hold) {
			return []*slot{s}
		}
	}
	return c.slots
}

// tokensOf returns the tokens of the child's hold; false unless every slot is seen to be
// of it. A token that the child does not know is taken from the Lease.
func (c *Claim) tokensOf(child Child, slots []*slot) ([]Token, bool) {
	var tokens []Token
	for _, s := range slots {
		r, ok := s.view.Record()
		if !ok || !c.config.Self.Holds(r, child.Hold) {
			return nil, false
		}
		token := campaign{tokens: child.Tokens}.token(s.name)
		if token == "" {
			token = r.Token
		}
		if token == "" {
			return nil, false
		}
		tokens = append(tokens, Token{Slot: s.name, Token: token})
	}
	return tokens, true
}

// proven reports whether the Lease is this pod's own and no child of its hold can be
// alive: the slot may be taken back at once, or released.
func (c *Claim) proven(f Facts, r lease.Record) bool {
	rebooted := c.config.Self.Rebooted(r) && !c.config.OwnKernel
	return c.config.Self.Mine(r) && (rebooted || f.Proven(r.Hold))
}

// mineProven reports whether any slot is this pod's own without need.
func (c *Claim) mineProven(f Facts) bool {
	return slices.ContainsFunc(c.slots, func(s *slot) bool {
		r, ok := s.view.Record()
		return ok && c.proven(f, r)
	})
}
