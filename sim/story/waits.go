// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// waits is a check in quiet times: no bid may wait for long for a slot that nobody uses.
type waits struct {
	*world.World
	// since has the instant from which a bid waits for a slot that nobody uses, for each such bid.
	since map[*world.Bidder]time.Duration
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
	for _, b := range biddersOf(s.World) {
		if !b.Bids || s.jointUsed(b) {
			delete(s.since, b)
			continue
		}
		if _, ok := s.since[b]; !ok {
			s.since[b] = s.Now()
		}
		if s.Now()-s.since[b] > s.bound {
			s.Violate(world.Nobody, "%s has waited for %v, and nobody uses its slot", b.Name, s.bound)
		}
	}
}

// used reports whether the bid has to wait. A bid waits while another bid of its pod for the same
// claim has a hold, or all slots of the claim are in use. If the claim has only one slot, this slot
// also counts as in use while some pod claims the slot by annotation.
func (s *waits) used(b *world.Bidder) bool {
	if b.Claim.Kind == api.RWLock {
		return s.readWriteUsed(b)
	}
	n, slots := 0, b.Claim.Slots(api.Workload{})
	for _, other := range biddersOf(s.World) {
		if other.Claim != b.Claim || other.Hold == nil {
			continue
		}
		if n++; other.Pod == b.Pod {
			return true
		}
	}
	for _, slot := range slots {
		if s.Checks.Holder(slot) != nil {
			n++
		}
	}
	return n >= len(slots) || slices.ContainsFunc(s.Pods, func(p *world.Pod) bool { return p.Slots[0] == slots[0] && len(slots) == 1 })
}

// readWriteUsed reports whether the bid has to wait. Each bid waits while another bid of its pod
// has a hold, or has waited for longer. Each bid waits while a writer holds. A writer's bid also
// waits while a reader holds. A reader's bid also waits while a writer bids, and while as many
// readers hold as the size allows.
func (s *waits) readWriteUsed(b *world.Bidder) bool {
	readers := 0
	for _, other := range biddersOf(s.World) {
		switch {
		case other == b || other.Claim.Kind != api.RWLock || other.Hold == nil && !other.Bids:
		case other.Pod == b.Pod && (other.Hold != nil || other.Since < b.Since), other.Hold != nil && (other.Writes || b.Writes),
			other.Hold == nil && other.Writes && !b.Writes:
			return true
		case other.Hold != nil:
			readers++
		}
	}
	return !b.Writes && readers >= b.Claim.Size
}

// joined reports whether another bidder than b waits in a joint call for the claim of b.
func (s *waits) joined(b *world.Bidder) bool {
	return slices.ContainsFunc(biddersOf(s.World), func(o *world.Bidder) bool {
		return o != b && o.Joint != nil && o.Claim.Kind == b.Claim.Kind && o.Claim.Name == b.Claim.Name
	})
}

// jointUsed reports whether a bid has to wait. A joint call has to wait while any of its claims is
// in use. While another joint call waits, the claims of that call count as in use, because that
// call may already hold slots.
func (s *waits) jointUsed(b *world.Bidder) bool {
	if b.Joint == nil {
		return s.joined(b) || s.used(b)
	}
	return slices.ContainsFunc(b.Joint.Bidders, func(m *world.Bidder) bool { return s.joined(m) || s.used(m) })
}

// biddersOf returns the bidders of all pods.
func biddersOf(w *world.World) (all []*world.Bidder) {
	for _, p := range w.Locals {
		all = append(all, p.Bidders...)
	}
	return all
}
