// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package elector

import (
	"time"

	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
)

// campaign is a hold that the claim acquires or has. No grant names the hold before the pod has all
// slots of the hold.
type campaign struct {
	hold string
	// resumed reports that an earlier agent process began the hold, and that a child of
	// the hold runs.
	resumed bool
	// writes reports that the hold is that of a writer.
	writes bool
	// slots are the slots that the campaign needs, in the order of acquisition.
	slots slots
	// tokens are the fencing tokens of a resumed hold.
	tokens []api.Token
	// since is the instant at which the campaign began, or last acquired a slot.
	since time.Duration
}

// token returns the token that a resumed hold has for the slot; empty if the campaign knows
// none.
func (c campaign) token(slot string) string {
	for _, t := range c.tokens {
		if t.Slot == slot {
			return t.Token
		}
	}
	return ""
}

// handback is what is left to do after a hold. The field competeAt is the end of the head start, once
// the head start has begun.
type handback struct {
	Parting
	competeAt time.Duration
}

// take sends the acquiring write of one slot. In a campaign that resumes no hold, the result is
// false if the slot is shut or not free. In all other cases the result is true, also if take cannot
// send the write yet. Then a later call sends the write.
func (c campaign) take(p *plan, s *slot) bool {
	r, ok := s.view.Record()
	if !ok || s.view.IsBlind() || s.requests.any() {
		return true // the answer of an earlier request is still missing
	}
	if !c.resumed && s.shut(r) {
		return false // no pod acquires a shut slot, even after its Lease has expired
	}
	if !c.resumed {
		at := s.view.DoubtedUntil()
		if !s.proven(p.facts, r) {
			at, _ = s.takableAt(p.facts)
		}
		if p.now < at {
			p.wakeAt(at)
			return false
		}
	}
	tryAt := s.pace.NextAt()
	if s.refused == r.Version {
		tryAt = max(tryAt, s.tryAt)
	}
	if p.now < tryAt {
		p.wakeAt(tryAt)
		return true
	}
	if s.refused == r.Version {
		// The API server has refused to replace this version, because this version is outdated. But
		// the watch still shows this version, so the watch is late or broken.
		s.refused = ""
		s.unsee(p.now)
		p.wakeAt(p.now)
		return true
	}
	c.acquire(p, s, r)
	return true
}

// find begins the hold of an acquiring write whose answer was lost, if a consistent read has shown
// this write in the Lease. If only a watch event shows the write, find lets the next look read the
// Lease. An overloaded API server may store each write only after the pod has given up. Without
// find, the pod would send the write again and again, and each such write would keep all other pods
// from the slot. The deadline counts from the sending of the write.
func (c campaign) find(p *plan, s *slot) {
	a := s.requests.unanswered
	r, _ := s.view.Record()
	late := p.now >= a.Sent()+s.Self.Budget.RenewDeadline
	if a.Record.Hold != c.hold || !stores(a, r) || s.requests.any() || late {
		return
	}
	if s.requests.readVersion != r.Version {
		if !s.view.IsBlind() {
			s.unsee(p.now)
			p.wakeAt(p.now)
		}
		return
	}
	if held, err := s.Self.Begin(a.attempt, r, a.campaign.token(s.name)); err == nil {
		s.obtain(p.now, held)
		s.confirmed = a.leaps
	}
}

// stores reports whether the record shows that the API server has stored the acquiring write. The renew
// time proves that.
func stores(a Action, r lease.Record) bool {
	return r.UID != "" && r.UID == a.Record.UID && r.Hold == a.Record.Hold && r.RenewTime.Equal(a.Record.RenewTime)
}

// acquire sends the write that begins or resumes the hold in the Lease of one slot.
func (c campaign) acquire(p *plan, s *slot, r lease.Record) {
	self, profile := s.Self, p.facts.Profile
	var next lease.Record
	var err error
	if c.resumed {
		profile.Serving = r.Profile.Serving
		next, err = self.Resume(r, c.hold, c.token(s.name), profile, p.facts.Wall)
	} else {
		next, err = self.Acquire(r, c.hold, profile, p.facts.Wall)
	}
	if err != nil {
		s.lookAgain(p.now, 0) // the record has no UID or no version, which a write must name
		return
	}
	s.delay.over()
	s.send(p, Action{
		Kind: Acquire, Record: next, campaign: c, Resumed: c.resumed,
		attempt: lease.Attempt{Sent: p.now, Record: next},
	}, next.Hold)
}

// patientUntil returns the instant until which the campaign keeps its slots while it cannot acquire
// the next slot. That instant is a lease duration after the campaign began or last acquired a slot.
// The campaign does not give up earlier, because the obstacle may pass by itself. Another pod may
// hold the next slot only briefly, or the API server may refuse the write only for a while. Two
// sorts of campaigns wait longer. A campaign that resumes a hold keeps its slots until the child of
// that hold is dead. A writer keeps its slots while the claim sees the next slot's Lease, and for a
// lease duration after that.
func (c campaign) patientUntil(s *slot) time.Duration {
	duration := s.Self.Budget.Duration
	if c.resumed {
		return pace.Never
	}
	_, sees := s.view.FreeAt(duration)
	switch {
	case c.writes && sees:
		return pace.Never
	case c.writes:
		return max(c.since, s.unseenAt) + duration
	}
	return c.since + duration
}
