// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package elector

import (
	"time"

	"github.com/metaparticle-io/metaparticle/agent/lease"
)

// crowd bounds the unanswered requests for one held slot, because a new request does not wait for
// the answers to the earlier ones. The delay between two requests is at least half of Budget.Retry,
// so at least half a second. So a ninth request is due four seconds after the first, or
// later. A request times out after a twelfth of the lease duration. With a lease of up to 48 s,
// the first request has timed out by then, so the bound delays no retry.
const crowd = 8

// renew sends the renewal of the slot if it is due. The next renewal is due a sixth of the lease
// duration after the last one. A renewal is due at once after a leap of the wall clock, if the
// rollout has changed, or if [Facts.RenewedSince] asks for one. The same is true if a note has changed that
// [same] compares. If the Lease must first be read, renew sends that read instead.
func (s *slot) renew(p *plan, profile lease.Profile) {
	if s.lost != nil {
		return
	}
	due, last := s.held.RenewAt(), s.held.Record()
	rollout := last.Rollout
	if p.facts.Rollout != nil {
		rollout = *p.facts.Rollout
	}
	if s.reread || s.confirmed < s.leaps || s.held.From() < p.facts.RenewedSince || !same(s.held.Profile(), profile) || last.Rollout != rollout {
		due = p.now
	}
	if due = max(due, s.tryAt, s.pace.NextAt()); p.now < due {
		p.wakeAt(due)
		return
	}
	if len(s.requests.underWay) >= crowd {
		return
	}
	s.tryAt = p.now + s.jitter(s.retry(p.now))
	p.wakeAt(s.tryAt)
	if s.reread {
		s.send(p, Action{Kind: Read, held: s.held, attempt: lease.Attempt{Record: last}}, "")
		return
	}
	attempt := s.held.Renew(p.now, p.facts.Wall, profile, p.facts.Supporters)
	attempt.Record.Rollout = rollout
	s.send(p, Action{Kind: Renew, held: s.held, attempt: attempt, Record: attempt.Record}, attempt.Record.Hold)
}

// retry returns the longest pause until the claim repeats a renewal. After half of the lease duration, every hold
// without a failsafe ends. Later, the API server may be away for long, and as all holders write to it, they must not
// keep it from recovering. So the pause is then a third of the time that is left until the drain.
func (s *slot) retry(now time.Duration) time.Duration {
	b := s.Self.Budget
	if now < s.held.From()+b.LeaseDuration()/2 {
		return b.Retry
	}
	return max(b.Retry, min((s.held.DrainAt()-now)/3, b.Renew, slowest))
}

// same reports whether the profiles agree in all facts that standbys need at once. The Job is left out,
// because it does not change while one agent process holds.
func same(a, b lease.Profile) bool {
	return a.Address == b.Address && a.Workload == b.Workload && a.Revision == b.Revision &&
		a.Serving.Equal(b.Serving) && a.Leaving == b.Leaving && a.Leave == b.Leave
}

// guard begins a new watch after the watch of a held slot has ended. So a holder learns at once
// that another pod has taken its Lease, even if its renewals are ten minutes apart.
//
// While a renewal is overdue, the claim begins no watch. The answer to the renewal shows the
// present Lease anyway, and a watch would only burden an API server after an outage.
func (s *slot) guard(p *plan) {
	if overdue := s.held.RenewAt() + s.Self.Budget.Retry; !s.look.on && p.now < overdue {
		s.beginLook(p)
	}
}

func (all slots) giveBack(p *plan) {
	for _, s := range all {
		s.giveBack(p)
	}
}

// giveBack releases the slot if its Lease still names this pod, and no child of that Lease's
// hold can be alive.
func (s *slot) giveBack(p *plan) {
	if s.held != nil {
		s.drop(p.now)
	}
	r, ok := s.view.Record()
	if !ok || s.requests.any() || !s.proven(p.facts, r) {
		return
	}
	if doubted := s.view.DoubtedUntil(); p.now < doubted {
		p.wakeAt(doubted) // pods that did not see the break would take the released slot at once
		return
	}
	if s.refused == r.Version && p.now < s.tryAt || p.now < max(s.look.at, s.pace.NextAt()) {
		p.wakeAt(max(s.tryAt, s.look.at, s.pace.NextAt()))
		return
	}
	if s.refused == r.Version {
		// The API server has refused to replace this version, because the version is outdated. But
		// the claim still sees this version: the watch is late or broken, or the answer to an old
		// read came late. So the claim reads the Lease again.
		s.refused, s.reread = "", true
		s.unsee(p.now)
		p.wakeAt(p.now)
	}
	if s.reread && s.view.IsBlind() {
		return // the next look reads the Lease
	}
	s.reread = false
	s.release(p, r)
}

// release sends the write that frees the slot. The caller has proof that no child of the hold
// is alive.
func (s *slot) release(p *plan, r lease.Record) {
	next, err := s.Self.Release(r, p.facts.Wall, p.successor)
	if err != nil {
		s.lookAgain(p.now, 0) // the record has no UID or no version, which a write must name
		return
	}
	// The API server may store the release after the pod has given up. So from here on only a write
	// begins the hold that this release ends, because both writes replace the same version.
	s.requests.unanswered = Action{}
	outcome := p.facts.Outcomes[r.Hold]
	next.Done = r.Done.With(outcome.Done)
	if r.Failures.Count(outcome.Done) > 0 {
		next.Failures = r.Failures.Without(outcome.Done)
	}
	next.Failures = next.Failures.With(outcome.Failed)
	s.send(p, Action{Kind: Release, Record: next, Hold: r.Hold}, "")
}
