// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// waits demands in quiet times that no bid waits for long for a slot that nobody uses.
type waits struct {
	*programs
	// since has, for each bid that waits for a slot that nobody uses, the instant since which the
	// bid does so.
	since map[*bidder]time.Duration
	bound time.Duration
	// next is the instant of the next judgement.
	next time.Duration
}

// judge demands that no bid waits for longer than the bound for a slot that nobody uses.
func (s *waits) judge() {
	if s.Now() < s.next {
		return
	}
	s.next = s.Now() + time.Second
	for _, b := range s.bidders() {
		if !b.bids || s.jointUsed(b) {
			delete(s.since, b)
			continue
		}
		if _, ok := s.since[b]; !ok {
			s.since[b] = s.Now()
		}
		if s.Now()-s.since[b] > s.bound {
			s.Violate(nobody, "%s has waited for %v, and nobody uses its slot", b.name, s.bound)
		}
	}
}

// used reports whether the bid has to wait. A bid waits while another bid of its pod for the same
// claim has a hold, or all slots are in use. The only slot of a claim also counts as in use while
// some pod claims the slot by annotation.
func (s *waits) used(b *bidder) bool {
	if b.claim.Kind == api.RWLock {
		return s.readWriteUsed(b)
	}
	n, slots := 0, b.claim.Slots(api.Workload{})
	for _, other := range s.bidders() {
		if other.claim != b.claim || other.hold == nil {
			continue
		}
		if n++; other.pod == b.pod {
			return true
		}
	}
	for _, slot := range slots {
		if s.checks.holder(slot) != nil {
			n++
		}
	}
	return n >= len(slots) || slices.ContainsFunc(s.pods, func(p *pod) bool { return p.slots[0] == slots[0] && len(slots) == 1 })
}

// readWriteUsed reports whether the bid has to wait. Each bid waits while another bid of its pod
// has a hold, or has waited for longer. Each bid waits while a writer holds. A writer's bid also
// waits while a reader holds. A reader's bid also waits while a writer bids, and while as many
// readers hold as the size allows.
func (s *waits) readWriteUsed(b *bidder) bool {
	readers := 0
	for _, other := range s.bidders() {
		switch {
		case other == b || other.claim.Kind != api.RWLock || other.hold == nil && !other.bids:
		case other.pod == b.pod && (other.hold != nil || other.since < b.since), other.hold != nil && (other.writes || b.writes),
			other.hold == nil && other.writes && !b.writes:
			return true
		case other.hold != nil:
			readers++
		}
	}
	return !b.writes && readers >= b.claim.Size
}

// joined reports whether another bidder than b waits in a joint call for the claim of b.
func (s *waits) joined(b *bidder) bool {
	return slices.ContainsFunc(s.bidders(), func(o *bidder) bool {
		return o != b && o.joint != nil && o.claim.Kind == b.claim.Kind && o.claim.Name == b.claim.Name
	})
}

// jointUsed reports whether a bid has to wait. A joint call has to wait while any of its claims
// is in use. While another joint call waits, its claims count as in use, because it may have
// acquired some of them already.
func (s *waits) jointUsed(b *bidder) bool {
	if b.joint == nil {
		return s.joined(b) || s.used(b)
	}
	return slices.ContainsFunc(b.joint.bidders, func(m *bidder) bool { return s.joined(m) || s.used(m) })
}
