// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package elector

import (
	"cmp"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/instant"
	"github.com/metaparticle-io/metaparticle/agent/pace"
)

// beginLook begins a look of the slot, if the next look is due.
func (s *slot) beginLook(p *plan) {
	at := max(s.look.at, spareAt(&s.pace))
	if sharesLooks(s) {
		at = max(at, s.looks.nextAt(s.look.from == "", readsForAny(s) && !s.looks.answered()))
		if s.look.denied {
			at = max(at, s.looks.deniedUntil)
		}
	}
	if p.now < at {
		p.wakeAt(at)
		return
	}
	s.look.begin(p.now)
	spendOnLook(s, p.now)
	if s.look.denied {
		s.looks.knock(p.now + s.jitter(min(pace.Backoff(s.looks.denials), s.Self.Budget.Renew)))
	}
	p.add(Action{Kind: Look, slot: s, look: s.look.number, From: s.look.from})
}

// longestSilence bounds the time for which a standby trusts the silent watch of a held or shut slot.
// A watch can stay open although no event can arrive any more, for example behind a proxy. Such a
// watch ends by its timeout only after hours. A new look costs two requests, which is little: in five
// minutes a holder with the default lease duration sends sixty renewals.
const longestSilence = 5 * time.Minute

// silentUntil returns the instant until which the standby trusts a silent watch of the slot. A holder
// renews six times in a lease duration, so two renewals are missing after a third of the duration.
// Without a new look, the standby would see a release only when the last state that the watch has
// shown expires. A shut slot may have no holder that renews. The standby does not write the Lease of a
// shut slot, so no conflict reveals a broken watch. If a slot is free, or its Lease expires before the
// look, the standby then writes the Lease. So the watch of such a slot may be silent for ever.
func silentUntil(s *slot) time.Duration {
	r, _ := s.view.Record()
	if s.shut(r) {
		return s.view.Heard() + longestSilence
	}
	if r.Holder != "" && !s.Self.Mine(r) {
		at := s.view.Heard() + min(max(r.Duration, s.Self.Budget.Duration)/3, longestSilence)
		if at < s.view.ExpiresAt(s.Self.Budget.Duration) {
			return at
		}
	}
	return instant.Never
}

// lookAgain ends the present look, and sets the earliest instant of the next look.
func (s *slot) lookAgain(now, retryAfter time.Duration) {
	unsee(s, now)
	s.look.failed = true
	s.look.at = now + s.backoff(now, retryAfter)
}

// lookAll begins a look of each slot that is not held. While another request for the slot is
// under way, no look begins, because the claim first waits for the answer to that request.
func (all slots) lookAll(p *plan) {
	all.endStaleLooks(p)
	for _, s := range all {
		s.child = p.facts.runs(s.name)
	}
	for _, s := range all.byUrgency() {
		switch {
		case s.held != nil:
			// The watch of a held slot goes on.
		case s.look.on || s.requests.any():
		case p.releases && sharesLooks(s):
			// While the claim releases its slots, no look begins, because the looks would slow
			// down the pod that acquires a released slot.
		case readsForAny(s) && all.reads() >= max(s.looks.atOnce, 1):
			// The reads of other looks are under way, and their answers lead to the next decision.
		default:
			s.beginLook(p)
		}
	}
}

// endStaleLooks ends the look of each slot whose watch has been silent for too long.
func (all slots) endStaleLooks(p *plan) {
	for _, s := range all {
		switch at := silentUntil(s); {
		case s.held != nil || !s.look.on || !s.look.read:
		case p.now < at:
			p.wakeAt(at)
		default:
			distrust(s, p.now)
		}
	}
}

// distrust ends the look of the slot, because its watch has been silent for too long.
func distrust(s *slot, now time.Duration) {
	unsee(s, now)
	s.view.Distrust(now)
}

// sharesLooks reports whether the bound on the looks of all slots applies to this slot. The bound
// does not apply to a slot whose Lease names this pod, or may name this pod. After an outage the
// other pods give the pod in such a Lease a short head start ([lease.Observer]). This pod must read
// the Lease within that time. A Lease may name this pod after a write without an answer, or if a
// child has a token of the slot.
func sharesLooks(s *slot) bool {
	r, _ := s.view.Record()
	return s.Any && s.held == nil && s.requests.unread == "" && !s.child && !s.Self.Mine(r)
}

// spendOnLook counts a request that a look sends.
func spendOnLook(s *slot, now time.Duration) {
	s.pace.Spend(now)
	if sharesLooks(s) {
		s.looks.pace.Spend(now)
		s.looks.last = now
	}
}

// readsForAny reports whether the next look of the slot begins with a read that the bound on all looks
// counts. A look that continues a watch sends no read. Such a look waits for no other look, because
// its watch may show a release that names this pod.
func readsForAny(s *slot) bool { return sharesLooks(s) && s.look.from == "" }

// missRead remembers that a look's read has failed, so the next looks of all slots come later. If the
// look has failed after its read, or if [sharesLooks] is false for the slot, missRead does nothing.
func missRead(s *slot, now, retryAfter time.Duration) {
	if s.look.read || !sharesLooks(s) {
		return
	}
	if s.look.began < s.looks.missedAt {
		s.looks.atOnce = 0
		return // this look began before the last miss, and the delay after that miss is enough
	}
	bound := min(slowest, s.Self.Budget.Renew)
	s.looks.missedAt = now
	s.looks.miss(now + s.jitter(max(min(pace.Backoff(s.looks.misses), bound), min(retryAfter, bound))))
}

// reads returns the number of looks that wait for the answers to their reads.
func (all slots) reads() (n int) {
	for _, s := range all {
		if s.look.reads() {
			n++
		}
	}
	return n
}

// byUrgency returns the slots in the order in which their looks begin, if not all of them may
// begin at once. Those slots come first whose looks have been due for the longest time. While the
// API server does not answer, slots with fewer misses come before all others. So a few Leases that
// the pod may not read delay no other look for long.
func (all slots) byUrgency() slots {
	return slices.SortedStableFunc(slices.Values(all), func(a, b *slot) int {
		if !a.looks.answered() && a.look.misses != b.look.misses {
			return cmp.Compare(a.look.misses, b.look.misses)
		}
		return cmp.Compare(a.look.at, b.look.at)
	})
}
