// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"slices"
	"strconv"
	"strings"
	"time"

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
	// Outlived means that a child lives past the instant at which the fastest clock allows
	// a standby to take the slot.
	Outlived = "outlived"
	// withoutProof means that the server stores a release while a child of the released hold lives,
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
	// Nobody stands for the violation that a slot has no holder for longer than the rules allow.
	Nobody = "nobody"
	// Stopped means that a child is stopped although no rule allows the stop.
	Stopped = "stopped"
	// undrained means that a child lives on after the end of its drain.
	undrained = "undrained"
	// Kept means that the hold of an init container ends before the application runs, so the
	// application runs under another hold.
	Kept = "kept"
	// pausedTaken means that a pod acquires a slot that a person has paused.
	pausedTaken = "paused-taken"
	// routed means that an application stops for a yield while its pod is still Ready. Then a node
	// may send a new connection to a port that is about to close.
	routed = "routed"
	// deletedBegins means that a child begins although its pod was deleted a while ago.
	deletedBegins = "deleted-begins"
	// skipped means that a pod skips although its application has begun, or although no
	// other pod held. A child that begins in a pod that skips, and a shim that ends its wait too
	// early, break the same invariant.
	skipped = "skipped"
	// Unfinished means that the rollout of a good version does not end in time.
	Unfinished = "unfinished"
	// Unprotected means that a rollout counts a pod of a broken version as available, or
	// that no old pod is left beside a broken version.
	Unprotected = "unprotected"
	// Withheld means that a broken version interrupts the service of the old version, and
	// that this outage lasts longer than the rules allow.
	Withheld = "withheld"
	// StopsOften means that a rollout stops the old version more often than the rules allow.
	StopsOften = "stops-often"
	// startsBeside means that a child begins although its pod does not hold the start lock. A pod
	// that releases the lock while a child starts breaks the same invariant.
	startsBeside = "starts-beside"
	// Freed means that a Lease becomes free although its holder has not released the
	// Lease.
	Freed = "freed"
)

// childBegins checks the invariants at the start of a child.
func (l *checks) childBegins(c *Child) {
	l.Note(c.where, "%s BEGINS under %s %v", c.Name, c.Hold, c.Slots)
	l.checkDeleted(c)
	checkStart(l, c)
	if len(c.Slots) == 0 || !l.absent(c, c.Slots[0].Slot) {
		l.done.begins(c.Name, c.Pod().Key, leaseUnder(c), 1+Skew)
	}
	c.Pod().ran = true
	if c.Pod().skips {
		l.Violate(skipped, "%s begins in a pod that skips", c.Name)
	}
	for _, t := range c.Slots {
		for _, other := range l.Alive {
			together := other.Pod() == c.Pod() && other.Hold == c.Hold && other.Container != c.Container
			if other.Has(t.Slot) && !l.absent(other, t.Slot) && !l.absent(c, t.Slot) && !together {
				l.Violate(twoAtOnce, "%s of %s begins while %s of %s lives, both under %s",
					c.Name, c.where, other.Name, other.where, t.Slot)
			}
		}
		if l.released[Key(t.Slot, c.Pod().Identity(), c.Hold)] {
			l.Violate(withoutProof, "%s begins under hold %s of %s, which is released", c.Name, c.Hold, t.Slot)
		}
		if !l.absent(c, t.Slot) {
			takenFromWork(l, t.Slot, c.Pod().Identity(), c.Hold)
			l.checkToken(t, c.Hold)
		}
	}
	if needed := c.Pod().needed(); len(c.Slots) != needed {
		l.Violate(twoAtOnce, "%s begins under %v, not under %d of %v", c.Name, c.Slots, needed, c.Pod().Slots)
	}
	if len(c.Slots) > 0 && !l.absent(c, c.Slots[0].Slot) {
		checkNumbers(l, c.Name+" begins", c.Pod())
	}
	l.Alive = append(l.Alive, c)
	l.checkCrowd(c)
}

// needed returns how many slots a pod of the template needs while its application runs.
func (t Template) needed() int {
	if t.Any {
		return 1
	}
	return len(t.forLife())
}

// checkCrowd judges a pod that needs any one of its slots, as with a semaphore or with shards. The
// number of holds with children, plus the number of works of programs, must not exceed the number
// of slots. The check counts a hold whatever slots that hold names.
func (l *checks) checkCrowd(c *Child) {
	if !c.Pod().Any {
		return
	}
	holds := map[string]bool{}
	for _, other := range l.Alive {
		absent := slices.ContainsFunc(other.Slots, func(t SlotToken) bool { return l.absent(other, t.Slot) })
		if other.Pod().Any && other.Pod().Shards == c.Pod().Shards && !absent {
			holds[other.Hold] = true
		}
	}
	n := len(holds)
	for _, k := range l.works {
		if slices.ContainsFunc(c.Pod().Slots, k.has) && !workAbsent(k) {
			n++
		}
	}
	if most := len(c.Pod().Slots); n > most {
		l.Violate(tooMany, "%s begins under one of %d holds, not of %d", c.Name, n, most)
	}
}

// checkToken demands that the token grows from hold to hold, and does not change within
// one hold.
func (l *checks) checkToken(t SlotToken, hold string) {
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
func (l *checks) checkExtended(c *Child, slots []SlotToken) {
	if c != nil && !slices.Equal(c.Slots, slots) {
		l.Violate(tokenChanged, "%s has %v, its grant goes on with %v", c.Name, c.Slots, slots)
	}
}

// childEnds checks the invariants when a child and all its descendants are dead.
func (l *checks) childEnds(c *Child) {
	l.Note(c.where, "%s is DEAD", c.Name)
	l.Alive = slices.DeleteFunc(l.Alive, func(other *Child) bool { return other == c })
	l.Ends = append(l.Ends, Ending{At: l.Now(), Child: c})
	l.CheckOutlived(c)
	// The shim may take a second to kill and to reap. In that second the fastest clock counts less
	// than 1.2 s.
	late := c.Pod().Node.Now() - c.drainBy - time.Second*12/10
	if c.drainBy > 0 && !c.Excused && late > 0 {
		l.Violate(undrained, "%s was to be dead %v ago", c.Name, late)
	}
}

// CheckOutlived demands that the child is dead before any standby may take its slot.
// The earliest standby has the fastest clock, and saw the last renewal at the instant
// at which the server stored it.
func (l *checks) CheckOutlived(c *Child) {
	if c.Excused {
		return
	}
	for _, t := range c.Slots {
		r, ok := l.Renewals[Key(t.Slot, c.Pod().Identity(), c.Hold)]
		if ok && l.Now() > r.free() && !l.absent(c, t.Slot) {
			l.Violate(Outlived, "%s lived until %v, %s was free from %v on", c.Name, l.Now(), t.Slot, r.free())
		}
	}
}

// checkUnfrozen checks a child whose machine has just woken. A child that has outlived its slot must be
// dead or frozen within the time [MostUnfrozen]. A frozen shim cannot freeze its child, so the check
// excuses that child.
func (l *checks) checkUnfrozen(c *Child) {
	l.After(MostUnfrozen+time.Millisecond, func() {
		if c.Alive {
			c.Excused = c.Excused || c.Shim != nil && c.Shim.frozen
			l.CheckOutlived(c)
		}
	})
}

// goesOn checks the invariants when the shim thaws its child.
func (l *checks) goesOn(c *Child) {
	l.CheckOutlived(c)
	if !c.Excused {
		checkNumbers(l, c.Name+" goes on", c.Pod())
	}
	for _, t := range c.Slots {
		for _, other := range l.Alive {
			together := other.Pod() == c.Pod() && other.Hold == c.Hold
			if other.Has(t.Slot) && !together && !l.absent(other, t.Slot) && !c.Excused {
				l.Violate(twoAtOnce, "%s of %s goes on while %s of %s lives, both under %s",
					c.Name, c.where, other.Name, other.where, t.Slot)
			}
		}
	}
}

// InUse reports whether the slot is in use: an elector works under it, or a child of a
// container's current shim runs under it. A child that was asked to stop does not count.
func (l *checks) InUse(slot string) bool {
	if c := l.Holder(slot); c != nil && !c.Asked && c.Current() {
		return true
	}
	return slices.ContainsFunc(l.electors, func(e *Elector) bool { return e.slot == slot && e.working })
}

// yielded is the reason of a drain for a yield, as the Event shows it.
const yielded = "Yielded"

// checkRouted judges the drain for a yield. If the holder has left its Services, the API server
// must have stored that the pod is not Ready. A pod whose status cannot be stored is excused,
// because a holder waits only for a limited time until its status is stored.
func (l *checks) checkRouted(c *Child, reason string) {
	p := c.Pod()
	lease, ok := p.w.API.Lease(p.Slots[0])
	if !ok || reason != yielded || lease.Annotations[api.HoldAnnotation] != c.Hold {
		return
	}
	_, says, _ := strings.Cut(lease.Annotations[api.LeavingAnnotation], " ")
	asked, _ := api.Asked(says) // a holder that only waits for the answer of a pod has not left
	if says != "" && asked == "" && lease.Annotations[api.ServingAnnotation] == "" && p.Shown.condition && !p.Shown.unstorable() {
		l.Violate(routed, "%s is to stop, and %s is still Ready", c.Name, p.Name)
	}
}

// mostDeleted bounds the time from the deletion of a pod to the last start of a child in
// that pod. The kubelet stops the shims within MostUntold.
const mostDeleted = MostUntold + Quick

// checkDeleted demands in times without faults that no child begins in a pod that was deleted a
// while ago. Without this rule a scale to zero, which deletes all pods together, would start the
// application in one pod after the other.
func (l *checks) checkDeleted(c *Child) {
	p := c.Pod()
	fairly := p.w.Calm && p.Shown.deletedAt > p.w.Healed && c.Shim != nil
	if age := l.Now() - p.Shown.deletedAt; fairly && p.Shown.deleted && age > mostDeleted {
		l.Violate(deletedBegins, "%s begins %v after the deletion of %s", c.Name, age, p.Name)
	}
}
