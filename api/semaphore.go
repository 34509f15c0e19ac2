// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"strconv"
	"strings"
)

// SemaphoreAnnotation is the key of the annotation for semaphores.
const SemaphoreAnnotation = Prefix + "semaphore"

const semaphorePrefix = "semaphore."

// maxSemaphore bounds the slots of a semaphore, because a standby watches all of them.
const maxSemaphore = maxAnyOne

// maxSemaphoreName bounds the name of a semaphore. A Lease's name also has the prefix, and the
// number of the slot.
const maxSemaphoreName = maxName - len(semaphorePrefix) - len(".63")

// Semaphore claims any one of several slots, for which pods of a namespace compete.
var Semaphore = &Kind{
	Key: SemaphoreAnnotation, Word: "semaphore", Ask: SemaphoreAnnotation, Scope: ScopeNamespace, Sole: true, StartsInTurn: true, Sized: true, AnyOne: true,
	parse:  parseSemaphore,
	slots:  semaphoreSlots,
	isSlot: isSemaphoreSlot,
}

// isSized reports whether the text has the form NAME=NUMBER, which only some claims have.
func isSized(text string) bool {
	name, number, sized := strings.Cut(text, "=")
	return sized && name != "" && number != "" && strings.Trim(number, "0123456789") == ""
}

// SemaphoreLease returns the name of the Lease of one slot of a semaphore. The slot's
// number follows the last dot, because a semaphore's name may have dots, too.
func SemaphoreLease(name string, slot int) string {
	return semaphorePrefix + name + "." + strconv.Itoa(slot)
}

func parseSemaphore(value string) ([]Claim, string) {
	name, text, sized := strings.Cut(strings.TrimSpace(value), "=")
	size, err := strconv.Atoi(text)
	switch {
	case strings.Contains(value, ","):
		return nil, "name one semaphore: a pod can have no other"
	case !sized:
		return nil, "write a name and how many pods may run, as in pool=3"
	case err != nil || size < 1 || size > maxSemaphore || strconv.Itoa(size) != text:
		return nil, fmt.Sprintf("after the = write how many pods may run: a number from 1 to %d", maxSemaphore)
	case !isSemaphore(name):
		return nil, fmt.Sprintf("a semaphore's name is at most %d lower-case letters, digits, dashes and dots, with a letter or digit at both ends", maxSemaphoreName)
	}
	return []Claim{{Name: name, Size: size}}, ""
}

func semaphoreSlots(c Claim, _ Workload) []string {
	var slots []string
	for i := range c.Size {
		slots = append(slots, SemaphoreLease(c.Name, i))
	}
	return slots
}

// isSemaphoreSlot reports whether the text can be the name of a semaphore's Lease. Only one
// spelling of a slot's number is valid, because a slot with two Leases could have two holders.
func isSemaphoreSlot(lease string) bool {
	rest, ok := strings.CutPrefix(lease, semaphorePrefix)
	name, number := cutNumber(rest)
	return ok && number >= 0 && number < maxSemaphore && isSemaphore(name)
}

// isSemaphore reports whether a semaphore can have the name.
func isSemaphore(name string) bool { return len(name) <= maxSemaphoreName && isSubdomain(name) }

const rwLockPrefix = "rwlock."

// intentEnding ends the name of each [IntentLease].
const intentEnding = ".intent"

// RWLockSlots is the number of slots of each read-write lock, whatever its size. A writer takes all
// of these slots, and so excludes all readers, whatever size their claims state. A version
// of Metaparticle with another number of slots must give the Leases other names. Otherwise, a
// writer of the one version would overlook a reader of the other version.
const RWLockSlots = 16

// maxRWLock bounds the name of a read-write lock. An intent's name also has the prefix and the
// ending.
const maxRWLock = maxName - len(rwLockPrefix) - len(intentEnding)

// RWLock claims any one of several slots for a reader, or all of them for a writer. Each
// bid of the program is for a reader or for a writer.
var RWLock = &Kind{
	Key: LocalAnnotation, Word: "rwlock", Ask: LocalAnnotation, Scope: ScopeNamespace, Sized: true,
	parse: func(value string) ([]Claim, string) {
		name, size, problem := parseRWLock(value)
		return []Claim{{Name: name, Size: size}}, problem
	},
	slots:  func(c Claim, _ Workload) []string { return rwLockSlots(c.Name) },
	isSlot: IsRWLockSlot,
}

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
// acquires these Leases in this order.
func rwLockSlots(name string) []string {
	slots := []string{IntentLease(name)}
	for i := range RWLockSlots {
		slots = append(slots, RWLockLease(name, i))
	}
	return slots
}

// RWLockLease returns the name of the Lease of one slot of a read-write lock.
func RWLockLease(name string, slot int) string { return rwLockPrefix + name + "." + strconv.Itoa(slot) }

// IntentLease returns the name of the Lease that a writer of a read-write lock acquires before
// the slots. The name's ending is not a number, so the Lease is not one of the slots.
func IntentLease(name string) string { return rwLockPrefix + name + intentEnding }

// IsRWLockSlot reports whether the text can be the name of a read-write lock's intent, or of the
// Lease of one of its slots.
func IsRWLockSlot(lease string) bool {
	rest, ok := strings.CutPrefix(lease, rwLockPrefix)
	if name, is := strings.CutSuffix(rest, intentEnding); is {
		return ok && isRWLock(name)
	}
	name, number := cutNumber(rest)
	return ok && number >= 0 && number < RWLockSlots && isRWLock(name)
}

// isRWLock reports whether a read-write lock can have the name.
func isRWLock(name string) bool { return len(name) <= maxRWLock && isSubdomain(name) }
