// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// passing means that a reader takes a slot although another pod has had the intent for a while.
const passing = "passing"

// readersClaims draws the claims of the story of readers. All pods name one read-write lock, with
// several sizes.
func readersClaims(s *programs) func() []api.Claim {
	return func() []api.Claim { return []api.Claim{{Kind: api.RWLock, Name: "c", Size: 1 + s.rng.IntN(3)}} }
}

// slots returns the slots of the hold in the line. A writer has all slots of the lock.
func (t told) slots() []string {
	if t.As != "writer" {
		return []string{t.Slot}
	}
	name := strings.TrimPrefix(t.Slot[:strings.LastIndexByte(t.Slot, '.')], "rwlock.")
	return api.Claim{Kind: api.RWLock, Name: name}.Slots(api.Workload{})
}

// as draws the kind of the bidder's next hold, and returns the query that asks for that kind.
func (b *bidder) as() string {
	if b.claim.Kind != api.RWLock {
		return ""
	}
	if b.writes = !b.readsOn() && chance(b.rng, .4); b.writes {
		return "&as=writer"
	}
	return "&as=reader"
}

// readsOn reports whether the bidder reads again and again in quiet times, because a writer waits.
func (b *bidder) readsOn() bool {
	w := b.pod.w
	return b.claim.Kind == api.RWLock && w.calm && !w.silent && !b.due && slices.ContainsFunc(w.locals, func(p *localPod) bool {
		return slices.ContainsFunc(p.bidders, func(o *bidder) bool { return o.due && o.bids && o.writes })
	})
}

// readWriteUsed reports whether the bid has to wait. Another bid of its pod has a hold, or waits as a
// writer. Or a writer holds, or readers hold that keep the bid out. A reader also waits for a
// writer that bids.
func (s *waits) readWriteUsed(b *bidder) bool {
	readers := 0
	for _, other := range s.bidders() {
		switch {
		case other == b || other.hold == nil && !other.bids:
		case other.pod == b.pod && (other.hold != nil || other.since < b.since), other.hold != nil && (other.writes || b.writes),
			other.hold == nil && other.writes && !b.writes:
			return true
		case other.hold != nil:
			readers++
		}
	}
	return !b.writes && readers >= b.claim.Size
}

// checkReadWrite demands that a writer works alone, and that its token is greater than each
// earlier token. A reader's token must be greater than each earlier writer's token.
func checkReadWrite(l *checks, k *work) {
	b := k.bidder
	if b.claim.Kind != api.RWLock {
		return
	}
	writes := len(k.slots) > 1
	if writes != b.writes || !writes && !slices.Contains(b.claim.Slots(api.Workload{})[1:1+b.claim.Size], k.slot) {
		l.violate(twoAtOnce, "%s works under %v", b.name, k.slots)
	}
	for _, other := range l.works {
		if other.bidder.claim.Name == b.claim.Name && (writes || len(other.slots) > 1) && !workAbsent(other) {
			l.violate(twoAtOnce, "%s works while %s works, and one of them writes", b.name, other.bidder.name)
		}
	}
	value, _ := strconv.ParseInt(k.token, 10, 64)
	for _, of := range []string{"any", "writer"} {
		last := l.tokens[of+" of "+b.claim.Name]
		if (writes || of == "writer") && last.hold != k.hold && value <= last.value {
			l.violate(tokenOrder, "%s has token %d, and an earlier hold had %d", b.name, value, last.value)
		}
		if (writes || of == "any") && value >= last.value {
			l.tokens[of+" of "+b.claim.Name] = token{k.hold, value}
		}
	}
}

// checkPassing demands in fair quiet times that no reader takes a slot while another pod has had the intent
// for a while. A reader with a mute watch may not know of the intent.
func checkPassing(l *checks, slot string, is *kube.Lease, sent time.Duration) {
	if !api.IsRWLockSlot(slot) {
		return
	}
	for _, p := range l.rivals {
		w := p.w
		if p.identity() != is.Holder || !w.calm || w.weather != fair || p.agent == nil || mute(p.agent.clientOf) {
			continue
		}
		intent := api.IntentLease(p.claims[0].Name)
		has, ok := l.acquired[intent]
		lease, _ := w.api.lease(intent)
		live := ok && lease.Holder == has.holder && l.renewals[key(intent, has.holder, has.hold)].free() > w.now()
		if slot != intent && live && has.holder != is.Holder && sent > max(has.at, w.healed)+time.Second {
			l.violate(passing, "%s takes %s, and %s has had %s since %v", p.name, slot, has.holder, intent, has.at)
		}
	}
}

// mute reports whether the client has a watch that carries no event any more.
func mute(c *clientOf) bool {
	return slices.ContainsFunc(c.w.api.watches, func(s *watch) bool { return s.c == c && s.mute })
}
