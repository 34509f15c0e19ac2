// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
)

// Restorer is the author of a write that brings back an earlier state of a Lease in the same hold. Each standby must
// have seen a state since then, because a new pod would believe the earlier one.
const Restorer = "restorer"

// passing means that a reader takes a slot although another pod has had the intent for a while.
const passing = "passing"

// leaseStored checks the invariants at each stored write of a Lease. The argument "sent" is the
// instant at which an agent or an elector sent its write.
func (l *checks) leaseStored(by, slot string, sent time.Duration, before, after apiserver.Version) {
	was, is := before.Lease, after.Lease
	if was == nil {
		was = new(apiserver.Lease)
	}
	if api.IsNextLease(slot) {
		l.Note(by, "writes %s of %q: %q (version %d)", slot, is.Holder, is.Annotations[api.WordsAnnotation], after.RV)
		l.words.said(l, is.Annotations[api.WordsAnnotation])
		return // a next Lease gives no pod the slot
	}
	l.done.stored(by, slot, was, is)
	l.words.announced(l, slot, is)
	hold, held := is.Annotations[api.HoldAnnotation], was.Annotations[api.HoldAnnotation]
	// A person may remove the annotation of the hold, or name another pod as the holder.
	acquires := is.Holder != "" && by == is.Holder && (is.Holder != was.Holder || hold != held && hold != "")
	switch {
	case acquires:
		l.Note(by, "ACQUIRES %s as %s (hold %s, version %d)", slot, is.Holder, hold, after.RV)
		l.checkAcquired(slot, is, hold)
		l.checkPaused(slot, was, is)
		checkStamp(l, slot, was, is)
		checkPassing(l, slot, is, sent)
	case is.Holder == "" && was.Holder != "":
		l.Note(by, "RELEASES %s of %s (hold %s, version %d)", slot, was.Holder, held, after.RV)
		l.checkReleased(by, slot, was, held)
		checkStartReleased(l, slot, was.Holder)
	case is.Holder == Unknown && was.Holder == "":
		l.Note(by, "creates %s held by %s for %ds", slot, is.Holder, is.DurationSeconds)
	case before.Raw == nil:
		l.Note(by, "creates %s free", slot)
	default:
		l.Note(by, "renews %s (version %d) %s", slot, after.RV, is.Annotations[api.LeavingAnnotation])
	}
	if is.Holder != "" {
		for _, c := range l.Alive {
			if !acquires && c.Has(slot) && c.Pod().Identity() == is.Holder && c.Hold == hold {
				l.CheckOutlived(c) // a renewal after the deadline does not excuse the child
			}
		}
		r := renewal{At: l.Now(), duration: time.Duration(is.DurationSeconds) * time.Second}
		if r.early = r.duration; len(SupportersOf(is).IDs) > 0 {
			r.early = SupportersOf(is).Wait
		}
		if by == Restorer {
			r.duration = max(r.duration, l.Renewals[Key(slot, is.Holder, hold)].duration)
		}
		l.Renewals[Key(slot, is.Holder, hold)] = r
		if acquires {
			l.acquired[slot] = acquisition{at: l.Now(), holder: is.Holder, hold: hold, sent: sent}
		} else if by == is.Holder {
			l.checkOrder(slot, is, sent)
		}
	}
}

func (l *checks) checkAcquired(slot string, is *apiserver.Lease, hold string) {
	// A pod may release the slot before the hold's first grant, and later acquire the slot
	// again under the same hold. So the earlier release must no longer count.
	delete(l.released, Key(slot, is.Holder, hold))
	for _, c := range l.Alive {
		if c.Has(slot) && !l.absent(c, slot) && (c.Pod().Identity() != is.Holder || c.Hold != hold) {
			l.Violate(twoAtOnce, "%s takes %s (hold %s) while %s of %s lives under hold %s",
				is.Holder, slot, hold, c.Name, c.where, c.Hold)
		}
	}
	takenFromWork(l, slot, is.Holder, hold)
	for _, e := range l.electors {
		if e.slot == slot && e.working && e.name != is.Holder {
			l.Violate(twoAtOnce, "%s takes %s while %s works", is.Holder, slot, e.name)
		}
	}
}

// checkPaused demands that no pod acquires a paused slot. The check ignores an [Elector], because
// client-go's leader election knows no pauses and writes no hold.
func (l *checks) checkPaused(slot string, was, is *apiserver.Lease) {
	hold := is.Annotations[api.HoldAnnotation]
	if _, paused := was.Annotations[api.PausedAnnotation]; paused && hold != was.Annotations[api.HoldAnnotation] {
		l.Violate(pausedTaken, "%s takes %s (hold %s), which is paused", is.Holder, slot, hold)
	}
}

func (l *checks) checkReleased(by, slot string, was *apiserver.Lease, hold string) {
	if was.Holder != Unknown && by != was.Holder && StampOf(was).Closed {
		checkFreed(l, by, slot, was, hold)
		return
	}
	l.released[Key(slot, was.Holder, hold)] = true
	releasedFromWork(l, by, slot, hold)
	if was.Holder == Unknown {
		if c := l.Holder(slot); c != nil && !l.absent(c, slot) {
			l.Violate(Freed, "%s frees %s while %s of %s lives", by, slot, c.Name, c.where)
		}
		return
	}
	if s, ok := l.started[Key(slot, was.Holder, hold)]; ok && !s.pod.Gone && s.boot == s.pod.Node.boot {
		l.Violate(withoutProof, "%s releases %s of hold %s, and nothing proves its application dead", by, slot, hold)
	}
	if by != was.Holder {
		l.Violate(Freed, "%s frees %s of %s", by, slot, was.Holder)
	}
	for _, c := range l.Alive {
		// A pod whose machine was replaced may hold again, after the expiry of the child's hold.
		if c.Has(slot) && c.Pod().Identity() == was.Holder && (c.Pod().heir == nil || c.Hold == hold) {
			l.Violate(withoutProof, "%s releases %s while %s of %s lives", by, slot, c.Name, c.where)
		}
	}
}

// checkOrder demands that a pod acquires its slots in sorted order. A pod breaks the order if it
// acquires a slot, then acquires another slot that sorts earlier, and then still renews the first
// slot. Renewals that the agent sent before the second acquisition do not count. The slots of
// shards, semaphores and barriers have no order, because a pod needs only one of them. A late write
// can give such a pod a second slot, which the pod then gives back. Separate claims have no order,
// either. The check ignores renewals of the start lock, too. A pod that has lost its other slots
// does not renew the start lock, so other pods wait only for a while.
func (l *checks) checkOrder(slot string, is *apiserver.Lease, sent time.Duration) {
	if api.AnyOne(slot) || slot == StartSlot || api.RunOf(slot) != "" || l.apart[is.Holder] {
		return
	}
	mine := l.acquired[slot]
	for other, a := range l.acquired {
		if other < slot && a.holder == is.Holder && mine.holder == is.Holder && a.at > mine.at && sent > a.sent {
			l.Violate(lockOrder, "%s acquired %s at %v and goes on holding %s of %v", is.Holder, other, a.at, slot, mine.at)
		}
	}
}

// checkSwept demands that enroll deletes no Lease under which a child lives.
func (l *checks) checkSwept(slot string) {
	if c := l.Holder(slot); c != nil && !l.absent(c, slot) {
		l.Violate(Freed, "%s is swept while %s of %s lives", slot, c.Name, c.where)
	}
}

// checkPassing demands, in quiet times without request faults, that no reader takes a slot more
// than a second after another pod has acquired the intent. A reader with a mute watch is excused,
// because that reader may not know of the intent. A write soon after the end of the faults is
// excused, because a request from the time of the faults may hang until its timeout.
func checkPassing(l *checks, slot string, is *apiserver.Lease, sent time.Duration) {
	if !api.IsRWLockSlot(slot) {
		return
	}
	p := l.rivals[is.Holder]
	if p == nil || !p.w.Calm || p.w.API.Weather != apiserver.Fair || p.Agent == nil || p.Agent.Muted() {
		return
	}
	intent := api.IntentLease(p.claims[0].Name)
	has, ok := l.acquired[intent]
	lease, _ := p.w.API.Lease(intent)
	live := ok && lease.Holder == has.holder && l.Renewals[Key(intent, has.holder, has.hold)].free() > l.Now()
	if slot != intent && live && has.holder != is.Holder && sent > max(has.at, p.w.Healed+Slow(BudgetOf(p.Duration).RequestTimeout))+time.Second {
		l.Violate(passing, "%s takes %s, and %s has had %s since %v", p.Name, slot, has.holder, intent, has.at)
	}
}
