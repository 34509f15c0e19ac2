// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"slices"
	"strconv"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/show"
	"github.com/metaparticle-io/metaparticle/api"
)

// These are the names of the invariants. The file of a planted bug lists the invariants
// that catch the bug, by these names. Each comment describes the violation.
const (
	// twoAtOnce means that two children of one slot live, or that a pod takes a slot while
	// a child of an earlier hold lives.
	twoAtOnce = "two-at-once"
	// tooMany means that more holds of a semaphore have children than the semaphore has
	// slots.
	tooMany = "too-many"
	// outlived means that a child lives past the instant at which the fastest clock allows
	// a standby to take the slot.
	outlived = "outlived"
	// withoutProof means that the server stores a release while a child of the hold lives,
	// or that a child begins under a released hold.
	withoutProof = "release-without-proof"
	// tokenOrder means that the token of a hold is not greater than the token of the slot's
	// previous hold.
	tokenOrder = "token-order"
	// tokenChanged means that two children of one hold, or two grants of one child, have
	// different tokens.
	tokenChanged = "token-changed"
	// lockOrder means that a pod acquires a slot while it holds a slot that sorts later.
	lockOrder = "lock-order"
	// nobody stands for the violation that a slot has no holder for longer than the rules allow.
	nobody = "nobody"
	// stopped means that a child is stopped although no rule allows the stop.
	stopped = "stopped"
	// undrained means that a child lives on after the end of its drain.
	undrained = "undrained"
	// kept means that the hold of an init container ends before the application runs, so the
	// application runs under another hold.
	kept = "kept"
	// pausedTaken means that a pod acquires a slot that a person has paused.
	pausedTaken = "paused-taken"
	// routed means that an application stops by a yield in a pod that is still Ready.
	// Then a node may send a new connection to a port that is about to close.
	routed = "routed"
	// deletedBegins means that a child begins although its pod was deleted a while ago.
	deletedBegins = "deleted-begins"
	// skipped means that a pod skips although its application has begun, or although no
	// other pod held. A child that begins in a pod that skips, and a shim that ends its wait too
	// early, break the same invariant.
	skipped = "skipped"
	// unfinished means that the rollout of a good version does not end in time.
	unfinished = "unfinished"
	// unprotected means that a rollout counts a pod of a broken version as available, or
	// that no old pod is left beside a broken version.
	unprotected = "unprotected"
	// withheld means that a broken version interrupts the service of the old version, and
	// that this outage lasts longer than the rules allow.
	withheld = "withheld"
	// stopsOften means that a rollout stops the old version more often than its rule allows.
	stopsOften = "stops-often"
	// startsBeside means that a child begins although its pod does not hold the start lock. A pod
	// that releases the lock while a child starts breaks the same invariant.
	startsBeside = "starts-beside"
	// freed means that a Lease becomes free although its holder has not released the
	// Lease.
	freed = "freed"
)

// childBegins checks the invariants at the start of a child.
func (l *checks) childBegins(c *child) {
	l.Note(c.where, "%s BEGINS under %s %v", c.name, c.hold, c.slots)
	l.checkDeleted(c)
	checkStart(l, c)
	l.done.begins(c.name, c.pod().key, leaseUnder(c), 1+skew)
	c.pod().ran = true
	if c.pod().skips {
		l.Violate(skipped, "%s begins in a pod that skips", c.name)
	}
	for _, t := range c.slots {
		for _, other := range l.alive {
			together := other.pod() == c.pod() && other.hold == c.hold && other.container != c.container
			if other.has(t.Slot) && !l.absent(other, t.Slot) && !l.absent(c, t.Slot) && !together {
				l.Violate(twoAtOnce, "%s of %s begins while %s of %s lives, both under %s",
					c.name, c.where, other.name, other.where, t.Slot)
			}
		}
		if l.released[key(t.Slot, c.pod().identity(), c.hold)] {
			l.Violate(withoutProof, "%s begins under hold %s of %s, which is released", c.name, c.hold, t.Slot)
		}
		if !l.absent(c, t.Slot) {
			takenFromWork(l, t.Slot, c.pod().identity(), c.hold)
			l.checkToken(t, c.hold)
		}
	}
	if needed := c.pod().needed(); len(c.slots) != needed {
		l.Violate(twoAtOnce, "%s begins under %v, not under %d of %v", c.name, c.slots, needed, c.pod().slots)
	}
	if len(c.slots) > 0 && !l.absent(c, c.slots[0].Slot) {
		checkNumbers(l, c.name+" begins", c.pod())
	}
	l.alive = append(l.alive, c)
	l.checkCrowd(c)
}

// needed returns how many slots a pod of the template needs while its application runs.
func (t template) needed() int {
	if t.any {
		return 1
	}
	return len(t.forLife())
}

// checkCrowd judges a pod that needs any one of its slots, as with a semaphore or with shards. The
// holds with children, and the works of programs, must be at most as many as the slots. The check
// counts these holds, whatever slots they name.
func (l *checks) checkCrowd(c *child) {
	if !c.pod().any {
		return
	}
	holds := map[string]bool{}
	for _, other := range l.alive {
		absent := slices.ContainsFunc(other.slots, func(t gate.SlotToken) bool { return l.absent(other, t.Slot) })
		if other.pod().any && other.pod().shards == c.pod().shards && !absent {
			holds[other.hold] = true
		}
	}
	n := len(holds)
	for _, k := range l.works {
		if slices.ContainsFunc(c.pod().slots, k.has) && !workAbsent(k) {
			n++
		}
	}
	if most := len(c.pod().slots); n > most {
		l.Violate(tooMany, "%s begins under one of %d holds, not of %d", c.name, n, most)
	}
}

// checkToken demands that the token grows from hold to hold, and does not change within
// one hold.
func (l *checks) checkToken(t gate.SlotToken, hold string) {
	value, err := strconv.ParseInt(t.Token, 10, 64)
	if err != nil {
		l.Violate(tokenOrder, "token %q of %s is no number", t.Token, t.Slot)
		return
	}
	last := l.tokens[t.Slot]
	switch {
	case last.hold == hold && last.value != value:
		l.Violate(tokenChanged, "hold %s of %s had token %d, now %d", hold, t.Slot, last.value, value)
	case last.hold != hold && value <= last.value:
		l.Violate(tokenOrder, "hold %s of %s has token %d, the one before %d", hold, t.Slot, value, last.value)
	}
	l.tokens[t.Slot] = token{hold, value}
}

// checkExtended demands that a later grant of a hold repeats the tokens of the first
// grant.
func (l *checks) checkExtended(c *child, g *gate.Grant) {
	if c != nil && !slices.Equal(c.slots, g.Slots) {
		l.Violate(tokenChanged, "%s has %v, its grant goes on with %v", c.name, c.slots, g.Slots)
	}
}

// childEnds checks the invariants when a child and all its descendants are dead.
func (l *checks) childEnds(c *child) {
	l.Note(c.where, "%s is DEAD", c.name)
	l.alive = slices.DeleteFunc(l.alive, func(other *child) bool { return other == c })
	l.ends = append(l.ends, ending{at: l.Now(), child: c})
	l.checkOutlived(c)
	// The shim may take a second to kill and to reap, for which the fastest clock shows
	// less than 1.2 s.
	late := c.pod().node.Now() - c.drainBy - time.Second*12/10
	if c.drainBy > 0 && !c.excused && late > 0 {
		l.Violate(undrained, "%s was to be dead %v ago", c.name, late)
	}
}

// checkOutlived demands that the child is dead before any standby may take its slot.
// The earliest standby has the fastest clock, and saw the last renewal at the instant
// at which the server stored it.
func (l *checks) checkOutlived(c *child) {
	if c.excused {
		return
	}
	for _, t := range c.slots {
		r, ok := l.renewals[key(t.Slot, c.pod().identity(), c.hold)]
		if ok && l.Now() > r.free() && !l.absent(c, t.Slot) {
			l.Violate(outlived, "%s lived until %v, %s was free from %v on", c.name, l.Now(), t.Slot, r.free())
		}
	}
}

// lingers checks a child whose machine has just woken. A child that has outlived its slot must be
// dead or frozen within the time [lingering]. A frozen shim can freeze no child, so its child is
// excused.
func (l *checks) lingers(c *child) {
	l.After(lingering+time.Millisecond, func() {
		if c.alive {
			c.excused = c.excused || c.shim != nil && c.shim.frozen
			l.checkOutlived(c)
		}
	})
}

// goesOn checks the invariants when the shim thaws its child.
func (l *checks) goesOn(c *child) {
	l.checkOutlived(c)
	if !c.excused {
		checkNumbers(l, c.name+" goes on", c.pod())
	}
	for _, t := range c.slots {
		for _, other := range l.alive {
			together := other.pod() == c.pod() && other.hold == c.hold
			if other.has(t.Slot) && !together && !l.absent(other, t.Slot) && !c.excused {
				l.Violate(twoAtOnce, "%s of %s goes on while %s of %s lives, both under %s",
					c.name, c.where, other.name, other.where, t.Slot)
			}
		}
	}
}

// settled reports whether the slot is in use: an elector works under it, or a child of a
// container's current shim runs under it. A child that was asked to stop does not count.
func (l *checks) settled(slot string) bool {
	if c := l.holder(slot); c != nil && !c.asked && c.current() {
		return true
	}
	return slices.ContainsFunc(l.electors, func(e *elector) bool { return e.slot == slot && e.working })
}

// checkRouted judges the drain for a yield. If the holder has left its Services, the API server
// must have stored that the pod is not Ready. A pod whose status cannot be stored is excused,
// because a holder waits only for a limited time until its status is stored.
func (l *checks) checkRouted(c *child, d *gate.Drain) {
	p := c.pod()
	lease, ok := p.w.api.Lease(p.slots[0])
	if !ok || d.Reason != show.ReasonYield || lease.Annotations[api.HoldAnnotation] != c.hold {
		return
	}
	left := lease.Annotations[api.LeavingAnnotation] != "" && lease.Annotations[api.ServingAnnotation] == ""
	if left && p.shown.condition && !p.shown.unstorable() {
		l.Violate(routed, "%s is to stop, and %s is still Ready", c.name, p.name)
	}
}

// mostDeleted bounds the time from the deletion of a pod to the last start of a child in
// that pod. The kubelet stops the shims within mostUntold.
const mostDeleted = mostUntold + quick

// checkDeleted demands in times without faults that no child begins in a pod that was deleted a
// while ago. Without this rule a scale to zero, which deletes all pods together, would start the
// application in one pod after the other.
func (l *checks) checkDeleted(c *child) {
	p := c.pod()
	fairly := p.w.calm && p.shown.deletedAt > p.w.healed && c.shim != nil
	if age := l.Now() - p.shown.deletedAt; fairly && p.shown.deleted && age > mostDeleted {
		l.Violate(deletedBegins, "%s begins %v after the deletion of %s", c.name, age, p.name)
	}
}
