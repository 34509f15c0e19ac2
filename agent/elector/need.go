// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package elector

import (
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
)

// need decides which slots a campaign may acquire now.
type need struct {
	*shared
	slots slots
	// began is the instant at which this agent process began.
	began time.Duration
}

// candidates returns the slots that a campaign needs, or none if the campaign may not begin or
// continue. Unless the pod competes as a writer, a pod that needs several slots acquires none
// before the pod sees all of them free. Otherwise the pod would keep other pods from running, but
// could not run itself. Once the campaign has a slot, patientUntil decides how long the campaign
// waits for the other slots.
func (n need) candidates(p *plan, c campaign) slots {
	if n.Any {
		return n.anyOne(p, c)
	}
	switch {
	case n.Readers > 0 && p.facts.Writes:
		return n.allForWriter()
	case n.Readers > 0:
		return n.oneForReader(p, c)
	}
	if n.slots.shut() {
		return nil // no wake-up is needed: the watch of a shut slot shows when the slot is no longer shut
	}
	if len(n.slots) == 1 || slices.ContainsFunc(n.slots, func(s *slot) bool { return s.held != nil }) {
		return n.slots
	}
	for _, s := range n.slots {
		if at := s.obtainableAt(p); p.now < at {
			p.wakeAt(at)
			return nil
		}
	}
	return n.slots
}

// anyOne returns the one slot that the campaign is to acquire. The first choice is a slot that
// is held, or that has a write under way. The next choice is a slot whose Lease names this pod, if
// no child of the Lease's hold can be alive. A slot whose release names this pod as successor
// ranks equally. Without such a slot the campaign keeps its last choice while that slot is free, or
// chooses another free slot. If no slot is free, the result is empty.
func (n need) anyOne(p *plan, c campaign) slots {
	if one := n.underWay(p, c); len(one) > 0 {
		return one
	}
	if at := n.soleAt(p); p.now < at {
		p.wakeAt(at)
		return nil
	}
	var own, free slots
	for _, s := range n.slots {
		at := s.choosableAt(p)
		if p.now < at {
			p.wakeAt(at)
			continue
		}
		if r, _ := s.view.Record(); s.proven(p.facts, r) || s.named(&s.view) {
			own = append(own, s)
		}
		free = append(free, s)
	}
	switch {
	case len(c.slots) == 1 && slices.Contains(own, c.slots[0]):
		return c.slots // perhaps the campaign's unanswered write was stored
	case len(own) > 0:
		return own[:1]
	case len(c.slots) == 1 && slices.Contains(free, c.slots[0]):
		return c.slots
	case len(free) == 0:
		return nil
	}
	// The choice is random, so that fewer standbys write the same Lease.
	i := int(n.Random.Uint64() % uint64(len(free))) //nolint:gosec // less than len(free)
	return free[i : i+1]
}

// underWay returns the one slot that is held, or that has a write of the campaign under way. After a
// lost answer the write counts as under way until a read of the Lease, but no longer than
// [campaign.find] could begin its hold. Otherwise the pod could acquire one slot after the other, and
// run under none. If no slot is in one of these states, the result is empty.
func (n need) underWay(p *plan, c campaign) slots {
	for _, s := range n.slots {
		until := s.requests.unanswered.Sent() + n.Self.Budget.RenewDeadline
		unread := s.requests.unread == c.hold && c.hold != "" && p.now < until
		if s.held != nil || slices.Contains(c.slots, s) && (s.requests.any() || unread) {
			if unread {
				p.wakeAt(until)
			}
			return slots{s}
		}
	}
	return nil
}

// oneForReader returns the one slot that a reader's campaign is to acquire. A reader chooses no slot
// while another pod has the intent, so no reader overtakes a waiting writer. Safety does not
// depend on the intent, because a writer needs the slots of all readers.
func (n need) oneForReader(p *plan, c campaign) slots {
	of := need{shared: n.shared, slots: n.slots[1 : 1+n.Readers], began: n.began}
	if one := of.underWay(p, c); len(one) > 0 {
		return one
	}
	intent := n.slots[0]
	at, sees := intent.freeAt(p.facts, &intent.view)
	if r, ok := intent.view.Record(); ok && !sees && intent.look.failed && p.now < intent.view.Heard()+n.Self.Budget.Duration {
		// If the API server refuses watches, the claim never sees the intent and another Lease at
		// the same time. So here the claim counts as seeing the intent if the claim has read the
		// intent within the last lease duration.
		if at, sees = p.facts.TakeFrom, true; r.Holder != "" {
			at = max(at, intent.view.ExpiresAt(n.Self.Budget.Duration))
		}
	}
	switch r, _ := intent.view.Record(); {
	case intent.proven(p.facts, r):
		// The intent's Lease still names this pod, whose program no longer wants to write. The
		// claim is about to release the intent, so the reader's campaign goes on.
	case !sees:
		return nil
	case p.now < at:
		p.wakeAt(at)
		return nil
	case n.unsure(at):
		return nil
	}
	return of.anyOne(p, c)
}

// unsure reports whether the intent's Lease counts as expired only because its watch was silent:
// the claim has heard nothing since the expiry. The watch may be broken. A reader never writes
// the intent, so no conflict would show the reader that the writer is alive.
func (n need) unsure(expiry time.Duration) bool {
	r, _ := n.slots[0].view.Record()
	return r.Holder != "" && n.slots[0].view.Heard() < expiry
}

// makeSure makes a reader read the intent's Lease once more after the Lease has expired. If the
// claim has heard of the Lease since the expiry, makeSure does nothing.
func (n need) makeSure(p *plan) {
	if n.Readers == 0 || p.facts.Writes || !p.facts.Compete {
		return
	}
	if at, sees := n.slots[0].freeAt(p.facts, &n.slots[0].view); sees && p.now >= at && n.unsure(at) {
		n.slots[0].distrust(p.now)
	}
}

// allForWriter returns all slots, the intent first. A writer acquires the intent before the other
// slots are free, and then waits for the readers. If a person has paused any of the slots, the
// result is empty: the writer would wait in vain, and keep all readers out. The same is true if
// a Lease is missing before the writer has the intent.
func (n need) allForWriter() slots {
	// Nobody knows when a missing Lease is created, so the writer might wait for ever.
	missing := func(s *slot) bool { _, ok := s.view.Record(); return !ok && s.held == nil }
	if n.slots.shut() || n.slots[0].held == nil && slices.ContainsFunc(n.slots, missing) {
		return nil
	}
	return n.slots
}

// inView returns the slots at which a standby looks. A reader looks only at the intent and at
// the next slots, as many as the size of its claim.
func (n need) inView(f Facts) slots {
	if n.Readers > 0 && !f.Writes {
		return n.slots[:1+n.Readers]
	}
	if n.width == 0 || n.width >= len(n.slots) {
		return n.slots
	}
	return slices.Concat(n.slots, n.slots)[n.from : n.from+n.width]
}

// widen doubles the number of slots in view, until at least one of these slots is perhaps free. So
// pods that start together find free slots with few looks. In the end, a standby sees all slots.
func (n need) widen(p *plan) {
	perhaps := func(s *slot) bool {
		// A random delay of the claim's own write says nothing about the other pods.
		at, sees := s.freeAt(p.facts, &s.view)
		return !s.look.failed && (!s.look.looked() || s.requests.any() || p.now >= s.choosable(p, at, sees))
	}
	for n.width > 0 && n.width < len(n.slots) && !slices.ContainsFunc(n.inView(p.facts), perhaps) {
		n.shared.width *= 2
	}
}

// unwanted reports whether the campaign is not for the hold that the pod wants now. Either the
// campaign is a reader's although the pod now wants to write, or a writer's although the pod wants
// to read.
func (n need) unwanted(c campaign, f Facts) bool {
	return n.Readers > 0 && c.hold != "" && c.writes != f.Writes
}

// limitProofs stores the only holds for which the claim believes [Outcome.Proven] from now on. These are
// the campaign's hold, the holds of unanswered writes, and the holds whose children are already
// proven dead. Any other hold has only expired, without proof. The claim stores these holds before
// the grant of the campaign's hold, because that grant ends the doubts of the shims. After the
// doubts end, [Outcome.Proven] could wrongly be true for a hold that has only expired.
func (n need) limitProofs(p *plan, hold string) {
	known := map[string]bool{hold: true}
	for _, s := range n.slots {
		if r, ok := s.view.Record(); ok && s.proven(p.facts, r) {
			known[r.Hold] = true
		}
		known[s.requests.unread] = true
		for _, written := range s.requests.underWay {
			known[written] = true
		}
	}
	n.shared.known = known
}

// soleAt returns the instant from which no child of an earlier agent process can be alive. Until
// then such a child may have a token of a slot whose Lease this process has not seen. The Lease of
// the child's slot may also have been deleted and created again. The new Lease names no hold, so
// the claim cannot learn of the child from this Lease.
func (n need) soleAt(p *plan) time.Duration {
	duration, at := n.Self.Budget.Duration, time.Duration(0)
	for _, s := range n.slots {
		switch r, ok := s.view.Record(); {
		case !ok && n.First:
			// No earlier agent process of the pod has competed for slots, so no such process can
			// have a child.
		case !ok:
			at = max(at, n.began+duration)
		case n.known != nil && !n.known[r.Hold]:
			// No child of an earlier agent process of this pod can be alive under the hold
			// in the Lease. Either no such process wrote that hold, or the hold had expired
			// before this process began its last campaign.
		case n.Self.Mine(r) && !s.proven(p.facts, r) && s.shut(r) && !n.OwnProofs:
			// The claim may not acquire a shut slot, so the slot's Lease continues to name the
			// unproven hold. If the pod took another slot, the grant for that other slot would end
			// the doubts of the shims. Then a later process of the pod would wrongly take the
			// unproven hold for a proven one.
			return pace.Never
		case n.Self.Mine(r) && !s.proven(p.facts, r):
			at = max(at, s.view.ExpiresAt(duration))
		case r.Holder != "" && r.Hold == "":
			at = max(at, min(s.view.ExpiresAt(duration), n.began+duration))
		}
	}
	return at
}

// resumable returns the campaign that resumes the hold of a child in [Facts.Children], if every
// Lease that the child needs still names that hold.
func (n need) resumable(f Facts) (campaign, bool) {
	for _, child := range f.Children {
		needed := n.slotsOf(child)
		if tokens, ok := n.tokensOf(child, needed); ok {
			return campaign{hold: child.Hold, resumed: true, slots: needed, tokens: tokens}, true
		}
	}
	return campaign{}, false
}

// slotsOf returns the slots that the child needs. If any one slot is enough, slotsOf takes the slot
// from the child's tokens, or a slot whose Lease names the hold. If neither exists, slotsOf returns
// all slots, because any of them may be the child's slot.
func (n need) slotsOf(child Child) slots {
	if !n.Any {
		return n.slots
	}
	for _, s := range n.slots {
		r, _ := s.view.Record()
		if slices.ContainsFunc(child.Tokens, func(t api.Token) bool { return t.Slot == s.name }) || n.Self.Holds(r, child.Hold) {
			return slots{s}
		}
	}
	return n.slots
}

// tokensOf returns the tokens of the child's hold. If the child lacks a token, tokensOf takes the
// token from the Lease. The second result is true if the claim sees that every needed Lease names
// that hold, and if tokensOf has found every token.
func (n need) tokensOf(child Child, needed slots) ([]api.Token, bool) {
	var tokens []api.Token
	for _, s := range needed {
		r, ok := s.view.Record()
		if !ok || !n.Self.Holds(r, child.Hold) {
			return nil, false
		}
		token := campaign{tokens: child.Tokens}.token(s.name)
		if token == "" {
			token = r.Token
		}
		if token == "" {
			return nil, false
		}
		tokens = append(tokens, api.Token{Slot: s.name, Token: token})
	}
	return tokens, true
}

// lost reports whether the claim sees that the hold of a child has ended, because a Lease of
// the child no longer names that hold. The result "taken" reports that another pod may hold
// that Lease.
func (n need) lost(child Child) (lost, taken bool) {
	needed := n.slotsOf(child)
	for _, s := range needed {
		r, ok := s.view.Record()
		if !ok && len(needed) > 1 && n.Any {
			return false, false // the claim does not see the Lease, so the child may still run
		}
		if ok && !n.Self.Holds(r, child.Hold) {
			lost, taken = true, taken || !n.Self.Mine(r)
		}
	}
	return lost, taken
}
