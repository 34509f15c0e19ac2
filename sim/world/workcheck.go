// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"slices"
	"strconv"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// tooLong means that an answer of the local API lets a program work beyond the instant at which
// another pod may acquire the slot. Many invariants of check.go apply to programs, too.
const tooLong = "too-long"

// key returns the name of the work's hold, for a slot of this hold.
func (k *work) key(slot string) string { return Key(slot, k.bidder.Pod.identity(), k.hold) }

// has reports whether the hold of the work has the slot.
func (k *work) has(slot string) bool { return slices.Contains(k.slots, slot) }

// workBegins checks the invariants when a program begins to work.
func workBegins(l *checks, k *work) {
	l.Note(k.bidder.Name, "WORKS under %s of %s, token %s", k.hold, k.slot, k.token)
	for _, slot := range k.slots {
		workBeginsUnder(l, k, slot)
	}
	if !workAbsent(k) {
		l.checkToken(SlotToken{Slot: k.slot, Token: k.token}, k.hold)
		checkReadWrite(l, k)
	}
	l.works = append(l.works, k)
	checkWorkCrowd(l, k.bidder)
}

// checkReadWrite demands that a writer works alone. A writer's token must be greater than each
// earlier token. A reader's token must be greater than each earlier writer's token.
func checkReadWrite(l *checks, k *work) {
	b := k.bidder
	if b.Claim.Kind != api.RWLock {
		return
	}
	writes := len(k.slots) > 1
	if writes != b.Writes || !writes && !slices.Contains(b.Claim.Slots(api.Workload{})[1:1+b.Claim.Size], k.slot) {
		l.Violate(twoAtOnce, "%s works under %v", b.Name, k.slots)
	}
	for _, other := range l.works {
		if other.bidder.Claim.Name == b.Claim.Name && (writes || len(other.slots) > 1) && !workAbsent(other) {
			l.Violate(twoAtOnce, "%s works while %s works, and one of them writes", b.Name, other.bidder.Name)
		}
	}
	value, _ := strconv.ParseInt(k.token, 10, 64)
	for _, of := range []string{"any", "writer"} {
		last := l.tokens[of+" of "+b.Claim.Name]
		if (writes || of == "writer") && last.hold != k.hold && value <= last.value {
			l.Violate(tokenOrder, "%s has token %d, and an earlier hold had %d", b.Name, value, last.value)
		}
		if (writes || of == "any") && value >= last.value {
			l.tokens[of+" of "+b.Claim.Name] = token{k.hold, value}
		}
	}
}

// workBeginsUnder demands that the hold of a new work is not released. Under the slot no other
// program may work, and no child may live.
func workBeginsUnder(l *checks, k *work, slot string) {
	if l.released[k.key(slot)] {
		l.Violate(withoutProof, "%s works under hold %s of %s, which is released", k.bidder.Name, k.hold, slot)
	}
	if workAbsent(k) {
		return
	}
	for _, other := range l.works {
		if other.has(slot) && !workAbsent(other) {
			l.Violate(twoAtOnce, "%s works while %s works, both under %s", k.bidder.Name, other.bidder.Name, slot)
		}
	}
	if c := l.Holder(slot); c != nil && !l.absent(c, slot) {
		l.Violate(twoAtOnce, "%s works while %s lives, both under %s", k.bidder.Name, c.Name, slot)
	}
}

// checkWorkCrowd demands that no more programs and children run under a claim than its size allows.
func checkWorkCrowd(l *checks, b *Bidder) {
	n, slots := 0, b.Claim.Slots(api.Workload{})
	for _, other := range l.works {
		if other.bidder.Claim == b.Claim && !workAbsent(other) {
			n++
		}
	}
	for _, c := range l.Alive {
		if slices.ContainsFunc(slots, func(slot string) bool { return c.Has(slot) && !l.absent(c, slot) }) {
			n++
		}
	}
	if n > len(slots) {
		l.Violate(tooMany, "%d programs work under %s", n, b.Claim.LocalText())
	}
}

// workEnds checks the invariants when a program has stopped its work.
func workEnds(l *checks, k *work, how string) {
	l.works = slices.DeleteFunc(l.works, func(other *work) bool { return other == k })
	l.Note(k.bidder.Name, "%s", how)
	checkWorkOutlived(l, k)
}

// checkWorkOutlived demands that the work ends before any standby may take a slot of the work.
func checkWorkOutlived(l *checks, k *work) {
	for _, slot := range k.slots {
		r, ok := l.Renewals[k.key(slot)]
		if free := r.free(); !k.excused && !workAbsent(k) && (!ok || l.Now() > free) {
			l.Violate(Outlived, "%s worked until %v, %s was free from %v on", k.bidder.Name, l.Now(), slot, free)
		}
	}
}

// workAbsent reports whether the work may overlap with other work under its slots. The work may
// overlap while the program stands still. The work may also overlap from the beginning of a
// pause of its machine. That time ends when the agent answers the program after the correction
// of the wall clock.
func workAbsent(k *work) bool {
	return k.bidder.Program.Frozen() || misled(k.bidder.Pod.Node, k.toldAt)
}

// takenFromWork demands that no program works under a slot when a pod acquires the slot for another
// hold.
func takenFromWork(l *checks, slot, holder, hold string) {
	for _, k := range l.works {
		if k.has(slot) && !workAbsent(k) && (k.bidder.Pod.identity() != holder || k.hold != hold) {
			l.Violate(twoAtOnce, "%s takes %s (hold %s) while %s works under hold %s", holder, slot, hold, k.bidder.Name, k.hold)
		}
	}
}

// releasedFromWork demands that no program works under a slot that becomes free.
func releasedFromWork(l *checks, by, slot, hold string) {
	for _, k := range l.works {
		if k.has(slot) && (k.hold == hold || !workAbsent(k)) {
			l.Violate(withoutProof, "%s releases %s (hold %s) while %s works under hold %s", by, slot, hold, k.bidder.Name, k.hold)
		}
	}
}

// checkTold demands that an answer lets a program work only until another pod may acquire the
// slot, whatever the clocks show. Answers just after a pause of the machine are excused,
// because an agent learns of the pause only when the wall clock is set right.
func checkTold(l *checks, a *LocalAgent, t told) {
	good := t.good()
	if good == 0 || misled(a.pod.Node, t.at) || a.thawedAt == t.at {
		return
	}
	for _, slot := range t.slots() {
		of := Key(slot, a.pod.identity(), t.Hold)
		r, ok := l.Renewals[of]
		switch until := t.at + time.Duration(float64(good)/(1-Skew)); {
		case !ok || l.released[of]:
			l.Violate(tooLong, "%s tells %s of %s for %v, and has no such hold of %s", a.Where, t.State, t.Hold, good, slot)
		case until > r.free():
			l.Violate(tooLong, "%s tells %s of %s for %v, until %v, and %s is free from %v on", a.Where, t.State, t.Hold, good, until, slot, r.free())
		}
	}
}

// checkJoint demands that an answer about several claims is good for no longer than any of its
// lines about one claim.
func checkJoint(l *checks, a *LocalAgent, t told) {
	for _, line := range t.Holds {
		checkTold(l, a, line)
		if t.GoodUntil > line.GoodUntil {
			l.Violate(tooLong, "%s tells several holds until %v, and %s until %v", a.Where, t.until(), line.Claim, line.until())
		}
	}
}

// misled reports whether at the instant "at" the processes of the node could not yet know of a
// pause of the machine. Processes learn of such a pause only when the wall clock is set right.
func misled(n *Node, at time.Duration) bool { return n.Paused || n.amiss > 0 || at <= n.rightAt }

// checkLeapSent checks what the agents on a node do after a leap of the node's wall clock. Each
// working program with an open connection to its agent must immediately get a line from that
// agent.
func checkLeapSent(l *checks, n *Node) {
	for _, k := range l.works {
		b, a := k.bidder, k.bidder.Pod.Agent
		if b.Pod.Node != n || !b.streams || b.Call == nil || b.Call.agent != a || a.handler == nil {
			continue
		}
		before := k.toldAt
		l.After(Quick, func() {
			stands := b.Program.Frozen() || b.Call == nil || b.Call.agent.Dead || a.Process.Frozen()
			if b.work == k && k.toldAt == before && !stands && a.thawedAt < n.rightAt {
				l.Violate(Outlived, "%s works on, and has heard nothing since the leap at %v", b.Name, n.rightAt)
			}
		})
	}
}
