// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package elector

import (
	"errors"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/agent/pace"
)

// current reports whether the action's look is the one that is under way for its slot.
func (a Action) current() bool { return a.slot.look.on && a.look == a.slot.look.number }

// Read processes the Lease that a look has read. From here on the look watches.
func (a Action) Read(now time.Duration, r lease.Record) {
	if !a.current() {
		return
	}
	s := a.slot
	s.spendOnLook(now) // the watch after the read is another request
	s.look.read = true
	s.looks.answer()
	if s.look.denied {
		s.look.denied = false
		s.looks.admit()
	}
	s.requests.unread = ""
	if s.held != nil {
		s.guarded(now, r)
		return
	}
	s.view.Read(now, r)
	s.requests.readVersion = r.Version
}

// WatchSent remembers that the look sends a second watch, because the API server has forgotten the
// version from which the first watch began.
func (a Action) WatchSent(now time.Duration) {
	if a.current() {
		a.slot.spendOnLook(now)
	}
}

// Watched processes an event of a look's watch.
func (a Action) Watched(now time.Duration, r lease.Record) {
	a.slot.look.told = a.slot.look.told || a.current()
	switch {
	case !a.current():
	case a.slot.held != nil:
		a.slot.guarded(now, r)
	case a.slot.outdated(now, r):
		a.slot.unsee(now)
	case a.slot.doubtful(r):
		a.slot.unsee(now)
		// An API server that is behind may show the same old state again at the beginning of the next
		// watch. So no look begins earlier than a holder retries.
		a.slot.look.at = max(now, a.slot.look.began+a.slot.Self.Budget.Retry)
	default:
		a.slot.view.Watched(now, r)
	}
}

// outdated reports whether the standby must read the Lease again instead of trusting the event r.
// The standby has trusted its silent watch for too long, or the event renews an expired hold. The
// agent may have been suspended since the event arrived, so the holder may be dead.
func (s *slot) outdated(now time.Duration, r lease.Record) bool {
	last, _ := s.view.Record()
	renews := r.Holder == last.Holder && r.Hold == last.Hold && r.RenewTime.After(last.RenewTime)
	return now >= s.silentUntil() || renews && now >= s.view.ExpiresAt(s.Self.Budget.Duration)
}

// doubtful reports whether the event r shows the end of the hold of this pod that the Lease named
// before. The event may be old, and a child of the hold may live. So the standby must read the Lease
// before the hold counts as lost. An event that shows this pod's own write, whose answer is still to
// come, is never doubtful.
func (s *slot) doubtful(r lease.Record) bool {
	last, _ := s.view.Record()
	ends := !s.Self.Mine(r) || r.Hold != last.Hold
	return s.Self.Mine(last) && ends && !slices.Contains(s.requests.underWay, r.Hold)
}

// Gone processes an event of a look's watch: the Lease is deleted. The event proves nothing about
// the holder.
func (a Action) Gone(now time.Duration) {
	switch {
	case !a.current():
	case a.slot.held != nil:
		a.slot.guarded(now, lease.Record{})
	default:
		a.slot.view.Gone()
		// While the Lease is gone, a standby writes nothing. So no conflict would reveal that the
		// watch is broken. Therefore the standby reads until the Lease is back.
		a.slot.lookAgain(now, 0)
	}
}

// guarded processes a state of the Lease that the look of a held slot has seen. A state whose hold,
// duration, pause, yield or stamp differs from the claim's record may be old. So the claim does not
// act on that state, and only reads the Lease. If a renewal is due, the claim sends the renewal
// instead of the read. If the claim read first, a series of events could delay the renewal for
// ever.
func (s *slot) guarded(now time.Duration, r lease.Record) {
	held := s.held.Record()
	if !s.Self.Holds(r, s.held.ID()) || r.Duration != held.Duration || r.Paused != held.Paused ||
		r.Yield != held.Yield || r.Stamp != held.Stamp {
		s.reread, s.tryAt = s.reread || now < s.held.RenewAt(), now
	}
}

// LookEnded processes the end of a look. After an end without an error, the next look continues
// the watch from the given version. After an error the next look reads the Lease first, because
// the standby may have missed changes. The same is true after an empty look: a proxy can end each
// watch without an error before any event has come.
func (a Action) LookEnded(now time.Duration, version string, end Answer) {
	s := a.slot
	switch {
	case !a.current():
	case end.Err == nil && s.look.empty(now):
		s.lookAgain(now, 0)
	case end.Err == nil:
		s.look.on, s.look.from = false, version
		// A standby begins a look no more often than a holder retries, even if the server ends
		// each watch immediately.
		s.look.at = max(now, s.look.began+s.Self.Budget.Retry)
	default:
		if end.Missing {
			s.view.Gone()
			s.requests.unread = ""
		}
		s.look.denied = end.Missing || end.Forbidden
		if s.look.denied {
			s.deniedAt = now
		}
		s.lookAgain(now, end.RetryAfter)
		if end.Missing {
			s.looks.answer() // the API server has answered that it has no such Lease
		} else {
			s.missRead(now, end.RetryAfter)
		}
	}
}

// answered processes the answer to a read or a write. The result is the error of the answer, or the
// reason why the answer does not count. For an answer that comes too late to matter, the result is
// nil.
func (c *claim) answered(now time.Duration, a Action, answer Answer) error {
	s := a.slot
	s.requests.answered(a.Record.Hold)
	switch a.Kind {
	case Acquire:
		return s.acquired(now, a, answer)
	case Release:
		return s.released(now, a, answer)
	case Renew:
		err := s.renewed(now, a, answer)
		s.confirm(now, a, answer)
		return err
	case Read:
		return s.readAgain(now, a, answer)
	default: // no answer comes for the other kinds
		return nil
	}
}

// acquired processes the answer to an acquiring write. If the answer is lost, the standby only
// reads the Lease again. If the Lease then names the hold of that write, [campaign.find] may begin
// the hold. The pod may also take the slot back or release the slot at once. No child of that hold
// can be alive, because the pod has sent no grant for the hold.
func (s *slot) acquired(now time.Duration, a Action, answer Answer) error {
	if answer.Err == nil {
		held, err := s.Self.Begin(a.attempt, answer.Record, a.campaign.token(s.name))
		if err == nil {
			s.obtain(now, held)
			s.confirmed = a.leaps
			return nil
		}
		answer = Answer{Err: err}
	}
	return s.missed(now, a, answer)
}

// released processes the answer to a releasing write.
func (s *slot) released(now time.Duration, a Action, answer Answer) error {
	if answer.Err != nil {
		return s.missed(now, a, answer)
	}
	s.look.misses = 0
	s.view.Learn(now, answer.Record)
	// The next looks wait a moment, and come one after the other. So their requests do not slow down
	// the pod that acquires the slot now.
	calm := now + pace.Backoff(0)
	s.look.at, s.looks.quietUntil, s.looks.spaced = calm, calm, true
	return nil
}

// missed processes the failure of a standby's write. A conflict means that another pod was faster,
// and the watch will show which pod. After any other failure the standby knows neither what is
// stored, nor how much its watch has missed.
func (s *slot) missed(now time.Duration, a Action, answer Answer) error {
	if answer.Conflict {
		if a.Kind == Acquire {
			s.spread.conflicted(now - a.Sent())
		}
		s.refused = a.Record.Version
		s.tryAt = now + max(s.jitter(s.Self.Budget.Retry), s.backoff(now, answer.RetryAfter))
		return answer.Err
	}
	if answer.Missing {
		s.view.Gone() // there is nothing to replace until the Lease is read again
	} else if a.Kind == Acquire {
		s.requests.lose(a)
	}
	s.lookAgain(now, answer.RetryAfter)
	return answer.Err
}

// renewed processes the answer to a renewal.
func (s *slot) renewed(now time.Duration, a Action, answer Answer) error {
	err := answer.Err
	if s.held != a.held {
		// The hold has ended since the renewal was sent. A later release must replace the
		// version that this renewal has stored.
		if err == nil && s.held == nil {
			s.view.Watched(now, answer.Record)
		}
		return nil
	}
	if err == nil {
		err = s.take(now, answer.Record, func(r lease.Record) error { return s.held.Answered(a.attempt, r) })
	}
	switch {
	case err == nil:
		s.tryAt = now // a success ends the delay before a retry
		return nil
	case a.Record.Version != s.held.Record().Version:
		return nil // the answer to another attempt came first
	case answer.Conflict, answer.Missing:
		// Only a read can show the present state of the Lease. The read is sent at once,
		// because the Lease may still name this hold.
		s.reread, s.tryAt = true, now
	case answer.Forbidden:
		s.held.Refused(a.attempt)
	}
	return err
}

// confirm remembers, once a renewal is stored, how many leaps of the wall clock came before that
// renewal was sent. If more leaps have come since, another renewal follows at once.
func (s *slot) confirm(now time.Duration, a Action, answer Answer) {
	if answer.Err != nil || s.held != a.held || s.lost != nil || s.held.Record().Version != answer.Record.Version {
		return
	}
	if a.leaps < s.leaps {
		s.tryAt = now
	}
	s.confirmed = max(s.confirmed, a.leaps)
}

// readAgain processes the answer to a consistent read of a held slot. If the read shows a new
// version and the same hold, the next renewal is sent at once.
func (s *slot) readAgain(now time.Duration, a Action, answer Answer) error {
	version := a.attempt.Record.Version
	switch {
	case s.held != a.held || version != s.held.Record().Version:
		return nil // a newer answer came first
	case answer.Err != nil:
		return answer.Err
	}
	s.reread = false
	if s.take(now, answer.Record, s.held.Read) == nil && answer.Record.Version != version {
		s.tryAt = now
	}
	return nil
}

// take passes the Lease of an answer to the slot's hold, by the function "answer". If the function
// returns [lease.ErrLost], the slot stays lost.
func (s *slot) take(now time.Duration, r lease.Record, answer func(lease.Record) error) error {
	err := answer(r)
	switch {
	case errors.Is(err, lease.ErrLost):
		s.lost = err
		s.view.Learn(now, r)
	case err == nil && s.held.Record().Version == r.Version:
		s.reread = false
		s.view.Learn(now, r)
	}
	return err
}
