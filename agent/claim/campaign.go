// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"time"

	"github.com/metaparticle-io/metaparticle/agent/instant"
	"github.com/metaparticle-io/metaparticle/agent/lease"
)

// campaign is a hold whose slots are still being acquired. No grant carries the hold's
// number before the pod holds all of the slots.
type campaign struct {
	hold string
	// resumed reports that an earlier agent process began the hold, and that a child of
	// the hold runs.
	resumed bool
	// writes reports that the hold is a writer's.
	writes bool
	// slots are the slots that the campaign needs, in the order of acquisition.
	slots slots
	// tokens are the fencing tokens of a resumed hold.
	tokens []Token
	// since is the instant at which the campaign began, or last acquired a slot.
	since time.Duration
}

// token returns the slot's token of a resumed hold; empty if the campaign knows none.
func (c campaign) token(slot string) string {
	for _, t := range c.tokens {
		if t.Slot == slot {
			return t.Token
		}
	}
	return ""
}

// handback is the duty of a claim to release its slots after a hold, and to let the
// other pods compete first.
type handback struct {
	// due reports that the claim must release the slots of the last hold before it acquires.
	due bool
	// headStart is the time after the release in which only the other pods compete.
	// competeAt is the end of that time.
	headStart, competeAt time.Duration
	// successor is the identity of the pod that the releases name; empty for none.
	successor string
}

// take sends the acquiring write of one slot when its time has come. The result is false if
// the slot is shut, or is not free.
func (c campaign) take(p *plan, s *slot) bool {
	r, ok := s.view.Record()
	if !ok || s.view.IsBlind() || len(s.writing) > 0 {
		return true // an answer is on its way
	}
	if !c.resumed && s.shut(r) {
		return false // no pod acquires a shut slot, even after its Lease has expired
	}
	if !c.resumed && !s.proven(p.facts, r) {
		if at, _ := s.freeAt(p.facts, &s.view); p.now < at {
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
		// The API server refused this version as old, and the standby still sees it. So
		// the watch is late or silent.
		s.refused = ""
		unsee(s, p.now)
		p.wakeAt(p.now)
		return true
	}
	c.acquire(p, s, r)
	return true
}

// acquire sends the write that begins, or resumes, the hold of one slot.
func (c campaign) acquire(p *plan, s *slot, r lease.Record) {
	self, notes := s.Self, p.facts.Notes
	var next lease.Record
	var err error
	if c.resumed {
		notes.Serving = r.Notes.Serving
		next, err = self.Resume(r, c.hold, c.token(s.name), notes, p.facts.Wall)
	} else {
		next, err = self.Acquire(r, c.hold, notes, p.facts.Wall)
		next.Rollout = p.facts.rollout(Acquire, r, c.hold)
	}
	if err != nil {
		s.lookAgain(p.now, 0) // the record names no object to replace
		return
	}
	s.send(p, Action{
		Kind: Acquire, Record: next, campaign: c, Resumed: c.resumed,
		attempt: lease.Attempt{Sent: p.now, Record: next},
	}, next.Hold)
}

// patientUntil returns the instant until which the campaign keeps its slots while it
// cannot acquire the next one: a lease duration after the last acquisition. The campaign
// waits because another pod may hold the next slot only briefly, or the API server may
// refuse the write for a while. A resumed hold keeps its slots until its child is dead. A
// writer keeps its slots while it sees the reader for which it waits.
func (c campaign) patientUntil(s *slot) time.Duration {
	duration := s.Self.Budget.Duration
	if c.resumed {
		return instant.Never
	}
	_, sees := s.view.FreeAt(duration)
	switch {
	case c.writes && sees:
		return instant.Never
	case c.writes:
		return max(c.since, s.unseenAt) + duration
	}
	return c.since + duration
}
