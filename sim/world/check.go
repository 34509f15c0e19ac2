// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"slices"
	"strconv"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// The invariants, by the names that the planted bugs are listed with.
const (
	// twoAtOnce: two children of one slot live, or a pod takes a slot while a child of an
	// earlier hold lives.
	twoAtOnce = "two-at-once"
	// tooMany: more holds of a semaphore have children than it has slots.
	tooMany = "too-many"
	// outlived: a child lived past the instant at which the fastest clock
	// allows a standby to take the slot.
	outlived = "outlived"
	// withoutProof: a release was stored while a child of that hold lived, or
	// a child began under a hold that was released.
	withoutProof = "release-without-proof"
	// tokenOrder: the token of a hold is not above that of the hold before.
	tokenOrder = "token-order"
	// tokenChanged: two children of one hold, or one child, had two tokens.
	tokenChanged = "token-changed"
	// lockOrder: a slot was acquired while one that sorts after it was held.
	lockOrder = "lock-order"
	// nobody: a slot has no holder for longer than the rules allow.
	nobody = "nobody"
	// chatter: a standby sent a request, or a holder more than its renewals.
	chatter = "chatter"
	// stopped: a child was stopped without a reason that the rules allow.
	stopped = "stopped"
	// undrained: a child that was told to stop went on.
	undrained = "undrained"
	// kept: a hold ended between an init container and the application.
	kept = "kept"
	// pausedTaken: a pod acquired a slot that a person had paused.
	pausedTaken = "paused-taken"
	// freed: a Lease that a pod may hold became free, and that pod did not release it.
	freed = "freed"
)

// checks has the facts that the invariants compare later events with.
type checks struct {
	alive  []*child
	tokens map[string]token // by slot
	// renewals: when the last write of each hold was stored, by slot and hold.
	renewals map[string]renewal
	// released holds, by slot and hold.
	released map[string]bool
	// started: the boot in which the kubelet started an application that nothing in
	// its pod can prove dead, by slot and hold.
	started map[string]string
	// acquired: the instant at which a pod acquired each slot, and the hold.
	acquired map[string]acquisition
	ends     []ending
	begins   int
}

type token struct {
	hold  string
	value int64
}

type renewal struct {
	at       time.Duration
	duration time.Duration
}

// free returns the instant at which the fastest clock lets a standby begin.
func (r renewal) free() time.Duration { return r.at + time.Duration(float64(r.duration)/(1+skew)) }

type acquisition struct {
	// wrote is the instant at which the write was sent.
	wrote  time.Duration
	at     time.Duration
	holder string
	hold   string
}

type ending struct {
	at    time.Duration
	child *child
}

func newChecks() checks {
	return checks{
		tokens: map[string]token{}, renewals: map[string]renewal{}, released: map[string]bool{}, started: map[string]string{},
		acquired: map[string]acquisition{},
	}
}

// key names one hold of one slot.
func key(slot, holder, hold string) string { return slot + " " + holder + " " + hold }

func (c *child) pod() *pod { return c.container.pod }

// has reports whether the child runs under the slot.
func (c *child) has(slot string) bool {
	return slices.ContainsFunc(c.slots, func(t gate.SlotToken) bool { return t.Slot == slot })
}

// childBegins checks the invariants at the birth of a child.
func (w *World) childBegins(c *child) {
	w.note(c.where, "%s BEGINS under %s %v", c.name, c.hold, c.slots)
	l := &w.ledger
	for _, t := range c.slots {
		for _, other := range l.alive {
			together := other.pod() == c.pod() && other.hold == c.hold && other.container != c.container
			if other.has(t.Slot) && !w.absent(other, t.Slot) && !w.absent(c, t.Slot) && !together {
				w.violate(twoAtOnce, "%s of %s begins while %s of %s lives, both under %s",
					c.name, c.where, other.name, other.where, t.Slot)
			}
		}
		if l.released[key(t.Slot, c.pod().identity(), c.hold)] {
			w.violate(withoutProof, "%s begins under hold %s of %s, which is released", c.name, c.hold, t.Slot)
		}
		if !w.absent(c, t.Slot) {
			w.checkToken(t, c.hold)
		}
	}
	if needed := c.pod().needed(); len(c.slots) != needed {
		w.violate(twoAtOnce, "%s begins under %v, not under %d of %v", c.name, c.slots, needed, c.pod().slots)
	}
	l.alive = append(l.alive, c)
	l.begins++
	w.checkCrowd(c)
}

// needed returns how many of its slots the pod needs.
func (p *pod) needed() int {
	if p.any {
		return 1
	}
	return len(p.slots)
}

// checkCrowd: a semaphore has at most as many holds with children as slots, whichever
// slots the children name, and whichever pods have them.
func (w *World) checkCrowd(c *child) {
	if !c.pod().any {
		return
	}
	holds := map[string]bool{}
	for _, other := range w.ledger.alive {
		absent := slices.ContainsFunc(other.slots, func(t gate.SlotToken) bool { return w.absent(other, t.Slot) })
		if other.pod().any && !absent {
			holds[other.hold] = true
		}
	}
	if most := len(c.pod().slots); len(holds) > most {
		w.violate(tooMany, "%s begins under one of %d holds, not of %d", c.name, len(holds), most)
	}
}

func (w *World) checkToken(t gate.SlotToken, hold string) {
	value, err := strconv.ParseInt(t.Token, 10, 64)
	if err != nil {
		w.violate(tokenOrder, "token %q of %s is no number", t.Token, t.Slot)
		return
	}
	last := w.ledger.tokens[t.Slot]
	switch {
	case last.hold == hold && last.value != value:
		w.violate(tokenChanged, "hold %s of %s had token %d, now %d", hold, t.Slot, last.value, value)
	case last.hold != hold && value <= last.value:
		w.violate(tokenOrder, "hold %s of %s has token %d, the one before %d", hold, t.Slot, value, last.value)
	}
	w.ledger.tokens[t.Slot] = token{hold, value}
}

// childEnds checks the invariants when a child and all its descendants are dead.
func (w *World) childEnds(c *child) {
	w.note(c.where, "%s is DEAD", c.name)
	l := &w.ledger
	l.alive = slices.DeleteFunc(l.alive, func(other *child) bool { return other == c })
	l.ends = append(l.ends, ending{at: w.now(), child: c})
	w.checkOutlived(c)
	// Killing and reaping take their second, by the fastest clock.
	late := c.pod().node.now() - c.drainBy - time.Second*12/10
	if c.drainBy > 0 && !c.excused && late > 0 {
		w.violate(undrained, "%s was to be dead %v ago", c.name, late)
	}
}

// checkExtended demands that a later grant of a hold repeats the tokens of the first
// one.
func (w *World) checkExtended(c *child, g *gate.Grant) {
	if c != nil && !slices.Equal(c.slots, g.Slots) {
		w.violate(tokenChanged, "%s has %v, its grant goes on with %v", c.name, c.slots, g.Slots)
	}
}

// checkOutlived demands that the child is dead before any standby may take its slot.
// The earliest standby has the fastest clock, and saw the last renewal when it was
// stored.
func (w *World) checkOutlived(c *child) {
	if c.excused {
		return
	}
	for _, t := range c.slots {
		r, ok := w.ledger.renewals[key(t.Slot, c.pod().identity(), c.hold)]
		if ok && w.now() > r.free() && !w.absent(c, t.Slot) {
			w.violate(outlived, "%s lived until %v, %s was free from %v on", c.name, w.now(), t.Slot, r.free())
		}
	}
}

// leaseStored checks the invariants at each stored write of a Lease.
func (w *World) leaseStored(by, slot string, before, after version) {
	var was, is kube.Lease
	if before.raw != nil {
		was = *before.lease
	}
	is = *after.lease
	if api.IsNextLease(slot) {
		w.note(by, "writes %s of %q (version %d)", slot, is.Holder, after.rv)
		return // no pod holds anything by it
	}
	hold, held := is.Annotations[api.HoldAnnotation], was.Annotations[api.HoldAnnotation]
	acquires := is.Holder != "" && is.Holder != Unknown && (is.Holder != was.Holder || hold != held)
	switch {
	case acquires:
		w.note(by, "ACQUIRES %s as %s (hold %s, version %d)", slot, is.Holder, hold, after.rv)
		w.checkAcquired(slot, &is, hold)
		w.checkPaused(slot, is.Holder, was.Annotations, hold)
	case is.Holder == "" && was.Holder != "":
		w.note(by, "RELEASES %s of %s (hold %s, version %d)", slot, was.Holder, held, after.rv)
		w.checkReleased(by, slot, &was, held)
	case is.Holder == Unknown && was.Holder == "":
		w.note(by, "creates %s held by %s for %ds", slot, is.Holder, is.DurationSeconds)
	case before.raw == nil:
		w.note(by, "creates %s free", slot)
	default:
		w.note(by, "renews %s (version %d)", slot, after.rv)
	}
	if is.Holder != "" {
		for _, c := range w.ledger.alive {
			if !acquires && c.has(slot) && c.pod().identity() == is.Holder && c.hold == hold {
				w.checkOutlived(c) // a renewal that comes too late makes nothing good
			}
		}
		w.ledger.renewals[key(slot, is.Holder, hold)] = renewal{at: w.now(), duration: time.Duration(is.DurationSeconds) * time.Second}
		w.checkOrder(slot, &is, hold, acquires)
	}
}

func (w *World) checkAcquired(slot string, is *kube.Lease, hold string) {
	// A hold that ended before its first grant may use its number again.
	delete(w.ledger.released, key(slot, is.Holder, hold))
	for _, c := range w.ledger.alive {
		if c.has(slot) && !w.absent(c, slot) && (c.pod().identity() != is.Holder || c.hold != hold) {
			w.violate(twoAtOnce, "%s takes %s (hold %s) while %s of %s lives under hold %s",
				is.Holder, slot, hold, c.name, c.where, c.hold)
		}
	}
	for _, e := range w.electors {
		if e.slot == slot && e.working && e.name != is.Holder {
			w.violate(twoAtOnce, "%s takes %s while %s works", is.Holder, slot, e.name)
		}
	}
}

func (w *World) checkReleased(by, slot string, was *kube.Lease, hold string) {
	w.ledger.released[key(slot, was.Holder, hold)] = true
	if was.Holder == Unknown {
		if c := w.holder(slot); c != nil && !w.absent(c, slot) {
			w.violate(freed, "%s frees %s while %s of %s lives", by, slot, c.name, c.where)
		}
		return
	}
	if p := w.find(was.Holder); p != nil && w.ledger.started[key(slot, was.Holder, hold)] == p.node.boot {
		w.violate(withoutProof, "%s releases %s of hold %s, and nothing proves its application dead", by, slot, hold)
	}
	if by != was.Holder {
		w.violate(freed, "%s frees %s of %s", by, slot, was.Holder)
	}
	for _, c := range w.ledger.alive {
		if c.has(slot) && c.pod().identity() == was.Holder {
			w.violate(withoutProof, "%s releases %s while %s of %s lives", by, slot, c.name, c.where)
		}
	}
}

// find returns the pod with the identity; nil if it is gone.
func (w *World) find(identity string) *pod {
	for _, p := range w.pods {
		if p.identity() == identity {
			return p
		}
	}
	return nil
}

// checkOrder demands that a pod acquires its slots in their order: a renewal of a slot
// follows no later acquisition of an earlier slot. A renewal that was sent earlier,
// and stored late, does not count.
func (w *World) checkOrder(slot string, is *kube.Lease, hold string, acquires bool) {
	l := &w.ledger
	if acquires {
		l.acquired[slot] = acquisition{at: w.now(), holder: is.Holder, hold: hold, wrote: w.api.sent}
		return
	}
	mine := l.acquired[slot]
	for other, a := range l.acquired {
		if other < slot && a.holder == is.Holder && mine.holder == is.Holder && a.at > mine.at && w.api.sent > a.wrote {
			w.violate(lockOrder, "%s acquired %s at %v and goes on holding %s of %v", is.Holder, other, a.at, slot, mine.at)
		}
	}
}

// holder returns the pod whose child runs under the slot; nil if no child does.
func (w *World) holder(slot string) *child {
	for _, c := range w.ledger.alive {
		if c.has(slot) {
			return c
		}
	}
	return nil
}

// settled reports whether a child that the kubelet knows runs under the slot.
func (w *World) settled(slot string) bool {
	if c := w.holder(slot); c != nil && !c.asked && c.current() {
		return true
	}
	for _, e := range w.electors {
		if e.slot == slot && e.working {
			return true
		}
	}
	return false
}

// healthy reports whether the pod is able to compete.
func (p *pod) healthy() bool {
	return p.object && !p.stopping && !p.gone && p.node.up && !p.node.frozen && !p.node.cutIn && !p.node.cutOut
}

// wanted reports whether a healthy pod claims the slot.
func (w *World) wanted(slot string) bool {
	return slices.ContainsFunc(w.pods, func(p *pod) bool {
		return p.healthy() && slices.Contains(p.slots, slot) && !w.barred(p, slot)
	})
}

// barred reports whether another pod holds one of the pod's slots, so that the pod
// takes none. A pod of a semaphore needs no second slot.
func (w *World) barred(p *pod, slot string) bool {
	if p.any {
		return slices.ContainsFunc(w.ledger.alive, func(c *child) bool { return c.pod() == p && !c.has(slot) && !c.asked && c.current() })
	}
	return slices.ContainsFunc(p.slots, func(other string) bool {
		lease, ok := w.api.lease(other)
		return other != slot && ok && lease.Holder != p.identity() && w.settled(other)
	})
}

// checkSwept demands that enroll deletes no Lease under which a child lives.
func (w *World) checkSwept(slot string) {
	if c := w.holder(slot); c != nil && !w.absent(c, slot) {
		w.violate(freed, "%s is swept while %s of %s lives", slot, c.name, c.where)
	}
}
