// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/console/view"
)

// lockOf returns the lock of a slot: the name of the Lease without its last part.
func lockOf(slot string) string { return slot[:strings.LastIndexByte(slot, '.')] }

// isIntent reports whether the slot is the intent of a read-write lock.
func isIntent(slot string) bool {
	return api.IntentLease(strings.TrimPrefix(lockOf(slot), view.RWLock+".")) == slot
}

// shortened returns the names of a pod's slots. If the pod has the intent of a read-write lock, one
// text stands for the intent and all slots of that lock.
func shortened(held []string) (texts []string) {
	for _, slot := range held {
		if !api.IsRWLockSlot(slot) || !slices.Contains(held, lockOf(slot)+".intent") {
			texts = append(texts, slot)
			continue
		}
		n := 0
		for _, other := range held {
			if api.IsRWLockSlot(other) && lockOf(other) == lockOf(slot) {
				n++
			}
		}
		text := lockOf(slot) + " to write"
		if n <= api.RWLockSlots {
			text = fmt.Sprintf("the intent of %s and %d of its %d slots", lockOf(slot), n-1, api.RWLockSlots)
		}
		if !slices.Contains(texts, text) {
			texts = append(texts, text)
		}
	}
	return texts
}

// possession has the slots of a read-write lock that one pod has under one hold.
type possession struct {
	slots []view.Slot
	// writes reports that the pod has all slots. The field "waits" reports that the pod has the
	// intent, and waits for readers.
	writes, waits bool
}

// possessions returns one possession for each pod that has slots of the read-write lock. Writers
// come first.
func possessions(lock []view.Slot) (all []possession) {
	for _, s := range lock {
		if s.Holder == nil {
			continue
		}
		i := slices.IndexFunc(all, func(p possession) bool {
			h := p.slots[0].Holder
			return h.Identity == s.Holder.Identity && h.Hold == s.Holder.Hold
		})
		if i < 0 {
			i, all = len(all), append(all, possession{})
		}
		all[i].slots = append(all[i].slots, s)
		all[i].waits = all[i].waits || isIntent(s.Slot)
	}
	for i := range all {
		all[i].writes = len(all[i].slots) == 1+api.RWLockSlots
		all[i].waits = all[i].waits && !all[i].writes
		// The local API gives the program the greatest token of its slots, so the slot with that
		// token comes first. Of two decimal numbers, the longer one is greater.
		slices.SortStableFunc(all[i].slots, func(a, b view.Slot) int {
			return cmp.Or(len(b.Holder.Token)-len(a.Holder.Token), strings.Compare(b.Holder.Token, a.Holder.Token))
		})
	}
	slices.SortStableFunc(all, func(a, b possession) int { return len(b.slots) - len(a.slots) })
	return all
}

// whole returns the changed slots. If a changed slot belongs to a read-write lock, whole adds the
// other slots of that lock.
func whole(changed, all []view.Slot) []view.Slot {
	wanted := map[string]bool{}
	key := func(s view.Slot) string {
		if s.Kind == view.RWLock {
			return s.Group()
		}
		return s.Namespace + "/" + s.Slot
	}
	for _, c := range changed {
		wanted[key(c)] = true
	}
	return slices.DeleteFunc(slices.Clone(all), func(s view.Slot) bool { return !wanted[key(s)] })
}
