// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"errors"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/lease"
)

// Answer is what became of a request.
type Answer struct {
	// Record is the Lease in the answer, if there is no error.
	Record lease.Record
	Err    error
	// Conflict: the Lease has another version. Missing: there is no such Lease.
	Conflict, Missing bool
	// RetryAfter is the pause that the API server asks for.
	RetryAfter time.Duration
}

// current reports whether the answer is of the slot's look that is under way.
func current(a Action) bool { return a.slot.look.on && a.look == a.slot.look.number }

// Read takes in what a look has read; a watch comes next.
func (c *Claim) Read(now time.Duration, a Action, r lease.Record) {
	if !current(a) {
		return
	}
	s := a.slot
	s.pace.spend(now) // for the watch
	s.unread = ""
	if s.held != nil {
		c.guarded(now, s, r)
		return
	}
	s.view.Read(now, r)
}

// WatchSent notes that the look sends another watch: the API server has forgotten the
// version from which the first was to go on.
func (c *Claim) WatchSent(now time.Duration, a Action) {
	if current(a) {
		a.slot.pace.spend(now)
	}
}

// Watched takes in an event of a look's watch.
func (c *Claim) Watched(now time.Duration, a Action, r lease.Record) {
	switch {
	case !current(a):
	case a.slot.held != nil:
		c.guarded(now, a.slot, r)
	default:
		a.slot.view.Watched(now, r)
	}
}

// Gone takes in a look's event that the Lease is deleted. The event proves nothing about
// the holder.
func (c *Claim) Gone(now time.Duration, a Action) {
	switch {
	case !current(a):
	case a.slot.held != nil:
		c.guarded(now, a.slot, lease.Record{})
	default:
		a.slot.view.Gone()
		// No write of a standby finds out that this watch has fallen silent: there is
		// nothing to take. So the standby reads the Lease until it is back.
		c.lookAgain(now, a.slot, 0)
	}
}

// guarded takes in what a look has seen of a held Lease. The event may be an old one, so
// the claim only reads because of it. A renewal that is due finds out as well, and is not
// put off for ever.
func (c *Claim) guarded(now time.Duration, s *slot, r lease.Record) {
	if !c.config.Self.Holds(r, s.held.ID()) {
		s.reread, s.tryAt = s.reread || now < s.held.RenewAt(), now
	}
}

// LookEnded takes in the end of a look. A watch that ended in good order goes on from the
// version; after an error there is a time of which the standby knows nothing.
func (c *Claim) LookEnded(now time.Duration, a Action, version string, end Answer) {
	s := a.slot
	switch {
	case !current(a):
	case end.Err == nil:
		s.look.on, s.look.from = false, version
		// Not faster than holders try, whatever a server does with watches.
		s.look.at = max(now, s.look.began+c.config.Self.Budget.Retry)
	default:
		if end.Missing {
			s.view.Gone()
		}
		c.lookAgain(now, s, end.RetryAfter)
	}
}

// Answered takes in the answer to a read or a write, which may come late. It returns the
// reason why the answer does not count; nil also if another answer has come before.
func (c *Claim) Answered(now time.Duration, a Action, answer Answer) error {
	s := a.slot
	hold := a.Record.Hold
	if i := slices.Index(s.writing, hold); i >= 0 {
		s.writing = slices.Delete(s.writing, i, i+1)
	}
	switch a.Kind {
	case Acquire:
		return c.acquired(now, a, answer)
	case Release:
		return c.released(now, a, answer)
	case Renew:
		err := c.renewed(now, a, answer)
		c.confirm(now, a, answer)
		return err
	case Read:
		return c.readAgain(now, a, answer)
	default: // no other request has an answer
		return nil
	}
}

// acquired takes in the answer to an acquiring write. A lost answer needs no care beyond
// reading again: nothing is granted yet. A Lease that turns out to be of this campaign is
// proof that no child of it is alive.
func (c *Claim) acquired(now time.Duration, a Action, answer Answer) error {
	if answer.Err == nil {
		held, err := c.config.Self.Begin(a.attempt, answer.Record, a.campaign.token(a.slot.name))
		if err == nil {
			a.slot.obtain(now, held)
			a.slot.confirmed = a.leaps
			if c.campaign.hold == a.campaign.hold {
				c.campaign.since = now
			}
			return nil
		}
		answer = Answer{Err: err}
	}
	return c.missed(now, a, answer)
}

// released takes in the answer to a releasing write.
func (c *Claim) released(now time.Duration, a Action, answer Answer) error {
	if answer.Err != nil {
		return c.missed(now, a, answer)
	}
	a.slot.look.misses = 0
	a.slot.view.Read(now, answer.Record)
	// The pod that takes the slot now should not have to share the API server's, or the
	// machine's, attention with our next look.
	a.slot.look.at = now + quick
	return nil
}

// missed takes in the failure of a standby's write. A conflict means that another pod was
// faster, and the watch is about to say which. After any other failure the standby does not
// know what was stored, nor for how long it could have seen nothing.
func (c *Claim) missed(now time.Duration, a Action, answer Answer) error {
	s := a.slot
	if answer.Conflict {
		s.refused = a.Record.Version
		s.tryAt = now + max(c.jitter(c.config.Self.Budget.Retry), c.backoff(now, s, answer.RetryAfter))
		return answer.Err
	}
	if answer.Missing {
		s.view.Gone() // there is nothing to write over, until the Lease is read again
	} else if a.Kind == Acquire {
		s.unread = a.Record.Hold
	}
	c.lookAgain(now, s, answer.RetryAfter)
	return answer.Err
}

// renewed takes in the answer to a renewal.
func (c *Claim) renewed(now time.Duration, a Action, answer Answer) error {
	s, err := a.slot, answer.Err
	if s.held != a.held {
		// The hold has ended since. What was stored is what a release has to replace.
		if err == nil && s.held == nil {
			s.view.Watched(now, answer.Record)
		}
		return nil
	}
	if err == nil {
		err = c.settle(now, s, answer.Record, func(r lease.Record) error { return s.held.Answered(a.attempt, r) })
	}
	switch {
	case err == nil:
		return nil
	case a.Record.Version != s.held.Record().Version:
		return nil // an attempt beside this one has settled it
	case answer.Conflict, answer.Missing:
		// Only a read can tell what stands there; at once, for it may be ours.
		s.reread, s.tryAt = true, now
	}
	return err
}

// confirm notes that a renewal was stored which was sent after so many leaps. Where more
// have come since, another renewal follows at once.
func (c *Claim) confirm(now time.Duration, a Action, answer Answer) {
	s := a.slot
	if answer.Err != nil || s.held != a.held || s.lost != nil || s.held.Record().Version != answer.Record.Version {
		return
	}
	if a.leaps < c.leaps {
		s.tryAt = now
	}
	s.confirmed = max(s.confirmed, a.leaps)
}

// readAgain takes in the read that follows a refused renewal. Where it finds a new
// version, and the hold still there, the next renewal is sent at once.
func (c *Claim) readAgain(now time.Duration, a Action, answer Answer) error {
	s, version := a.slot, a.attempt.Record.Version
	switch {
	case s.held != a.held || version != s.held.Record().Version:
		return nil // settled in the meantime
	case answer.Err != nil:
		return answer.Err
	}
	s.reread = false
	if c.settle(now, s, answer.Record, s.held.Read) == nil && answer.Record.Version != version {
		s.tryAt = now
	}
	return nil
}

// settle hands an answer to the hold. A slot that the hold calls lost stays lost,
// whatever comes later.
func (c *Claim) settle(now time.Duration, s *slot, r lease.Record, take func(lease.Record) error) error {
	err := take(r)
	switch {
	case errors.Is(err, lease.ErrLost):
		s.lost = err
		s.view.Read(now, r)
	case err == nil && s.held.Record().Version == r.Version:
		s.reread = false
		s.view.Read(now, r)
	}
	return err
}
