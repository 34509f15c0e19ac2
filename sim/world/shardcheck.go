// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
)

// These are the names of the invariants about shards. Each comment describes the violation.
const (
	// twoNumbers means that children of two pods with different numbers of shards live at once.
	// A pod that acquires a shard counts as a pod with a child.
	twoNumbers = "two-numbers"
	// twoRuns means that children of two pods from different Jobs live at once. A pod that
	// acquires a shard counts as a pod with a child.
	twoRuns = "two-runs"
	// unstamped means that a pod acquires a shard whose stamp does not admit the pod.
	unstamped = "unstamped"
)

// checkNumbers demands that each sharded pod with a living child has the same Job and the same
// number of shards as the pod p. The argument "event" says how the pod p came to run or to
// hold, for example "NAME begins".
func checkNumbers(l *checks, event string, p *Pod) {
	if p.Shards == 0 {
		return
	}
	for _, other := range l.Alive {
		of := other.Pod()
		switch {
		case of.Shards == 0 || of.Shards == p.Shards && of.Key == p.Key || l.absent(other, other.Slots[0].Slot):
		case of.Key != p.Key:
			l.Violate(twoRuns, "%s in the run %s while %s of %s lives in the run %s", event, p.Key, other.Name, other.where, of.Key)
		default:
			l.Violate(twoNumbers, "%s for %d shards while %s of %s lives for %d shards", event, p.Shards, other.Name, other.where, of.Shards)
		}
	}
}

// checkStamp demands that a pod acquires a shard only by a stamp that admits the pod.
func checkStamp(l *checks, slot string, was, is *apiserver.Lease) {
	p := l.sharded[is.Holder]
	if p == nil || is.Annotations[api.HoldAnnotation] == was.Annotations[api.HoldAnnotation] {
		return
	}
	if s := StampOf(was); s.Closed || s.Count != p.Shards || s.Run != p.Key {
		l.Violate(unstamped, "%s of %d shards in the run %q takes %s with the stamp %q", is.Holder, p.Shards, p.Key, slot, s)
	}
	checkNumbers(l, is.Holder+" takes "+slot, p)
}

// checkFreed demands that enroll frees a closed Lease only after its expiry, and after the
// death of the holder's child.
func checkFreed(l *checks, by, slot string, was *apiserver.Lease, hold string) {
	r, ok := l.Renewals[Key(slot, was.Holder, hold)]
	if ok && l.Now() < r.At+r.duration {
		l.Violate(Freed, "%s frees %s of %s, which has not expired", by, slot, was.Holder)
	}
	for _, c := range l.Alive {
		if c.Has(slot) && c.Pod().Identity() == was.Holder && !l.absent(c, slot) {
			l.Violate(Freed, "%s frees %s while %s of %s lives", by, slot, c.Name, c.where)
		}
	}
}
