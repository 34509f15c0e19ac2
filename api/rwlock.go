// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"strconv"
	"strings"
)

// parseRWLock reads NAME=SIZE. The size says how many pods may read at once.
func parseRWLock(value string) (name string, size int, problem string) {
	name, text, sized := strings.Cut(value, "=")
	size, err := strconv.Atoi(text)
	switch {
	case !sized:
		return "", 0, "write a name and how many pods may read at once, as in rwlock/catalog=8"
	case err != nil || size < 1 || size > RWLockSlots || strconv.Itoa(size) != text:
		return "", 0, fmt.Sprintf("after the = write how many pods may read at once: a number from 1 to %d", RWLockSlots)
	case !isRWLock(name):
		return "", 0, fmt.Sprintf("a read-write lock's name is at most %d lower-case letters, digits, dashes and dots, with a letter or digit at both ends", maxRWLock)
	}
	return name, size, ""
}

// rwLockSlots returns the intent, and then all slots, whatever the size of the claim is. A writer
// acquires them in this order.
func rwLockSlots(name string) []string {
	slots := []string{IntentLease(name)}
	for i := range RWLockSlots {
		slots = append(slots, RWLockLease(name, i))
	}
	return slots
}
