// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/metaparticle-io/metaparticle/api"
)

// rwLock is the kind of the slots of a read-write lock.
const rwLock = "rwlock"

// lockOf returns the lock of a slot: the name of the Lease without its last part.
func lockOf(slot string) string { return slot[:strings.LastIndexByte(slot, '.')] }

// isIntent reports whether the slot is the intent of a read-write lock.
func isIntent(slot string) bool {
	return api.IntentLease(strings.TrimPrefix(lockOf(slot), rwLock+".")) == slot
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
