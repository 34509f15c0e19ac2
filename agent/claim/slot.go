// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"time"

	"github.com/metaparticle-io/metaparticle/agent/lease"
)

// slot is one Lease, as this claim sees and holds it.
type slot struct {
	name string
	view lease.Observer
	// held is nil while the slot is not held. lost says that the Lease was seen not to
	// be of the hold any more.
	held *lease.Hold
	lost error

	look look
	pace pace

	// writing has an entry for each request under way that is no look: the hold of an
	// acquiring write or a renewal, and an empty one for a release or a read.
	writing []string
	// tryAt is when the next write may begin. refused is the version that a write was
	// refused to replace.
	tryAt   time.Duration
	refused string
	// reread: a refused renewal calls for a consistent read.
	reread bool
	// unread is the hold of an acquiring write whose answer was lost, until the Lease
	// is read.
	unread string
	// confirmed counts the leaps of the wall clock before the last stored renewal was
	// sent. leaptAt is the instant at which a leap last caused an attempt.
	confirmed int
	leaptAt   time.Duration
}

// look is a standby's read and watch of a slot.
type look struct {
	// on: a look is under way. ended: the caller does not know yet that it has ended.
	on, ended bool
	// number tells the late answers of a look from those of its successor.
	number int
	// from is where a watch that ended in good order goes on.
	from string
	// at is when the next look may begin, began when the last one did.
	at, began time.Duration
	// misses counts the failures since the last success.
	misses int
}

// record returns what the slot's next write replaces.
func (s *slot) record() lease.Record {
	if s.held != nil {
		return s.held.Record()
	}
	r, _ := s.view.Record()
	return r
}

// endLook ends the slot's look; its late answers change nothing.
func (s *slot) endLook() {
	s.look.ended = s.look.ended || s.look.on
	s.look.on = false
	s.look.number++
	s.look.from, s.look.at = "", 0
}

// drop turns a held slot into a standby's. Its watch has ended, so the slot is not free
// before it was read again.
func (s *slot) drop(now time.Duration) {
	s.view.Read(now, s.held.Record())
	s.view.Blind()
	s.held, s.lost, s.reread, s.refused, s.tryAt = nil, nil, false, "", 0
	s.endLook()
}

// obtain makes the hold the slot's.
func (s *slot) obtain(now time.Duration, held *lease.Hold) {
	s.held, s.lost, s.reread, s.unread, s.refused, s.tryAt, s.look.misses = held, nil, false, "", "", 0, 0
	s.view.Read(now, held.Record())
}

// endedLooks returns the actions that end the looks which the claim gave up.
func (c *Claim) endedLooks() []Action {
	var actions []Action
	for _, s := range c.slots {
		if s.look.ended {
			s.look.ended = false
			actions = append(actions, Action{Kind: EndLook, Slot: s.name, slot: s})
		}
	}
	return actions
}

// lookAll keeps the slots in sight that are not held. While a write is under way, its
// answer is the better news.
func (c *Claim) lookAll(p *plan, slots []*slot) {
	for _, s := range slots {
		switch {
		case s.held != nil:
			// Its watch goes on.
		case s.look.on || len(s.writing) > 0:
		default:
			c.beginLook(p, s)
		}
	}
}

// beginLook begins a look of the slot, when its time has come.
func (c *Claim) beginLook(p *plan, s *slot) {
	if at := max(s.look.at, s.pace.spareAt()); p.now < at {
		p.wakeAt(at)
		return
	}
	s.look.on, s.look.began = true, p.now
	s.look.number++
	s.pace.spend(p.now)
	p.add(Action{Kind: Look, slot: s, look: s.look.number, From: s.look.from})
}

// send returns the action with the slot's request noted.
func (c *Claim) send(p *plan, a Action, hold string) {
	a.slot.writing = append(a.slot.writing, hold)
	a.slot.pace.spend(p.now)
	a.leaps = c.leaps
	p.add(a)
}

// lookAgain ends a look that shows nothing any more, and puts the next one off.
func (c *Claim) lookAgain(now time.Duration, s *slot, retryAfter time.Duration) {
	s.endLook()
	s.view.Blind()
	s.look.at = now + c.backoff(now, s, retryAfter)
}
