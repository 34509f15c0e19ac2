// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"strings"
)

// LockAnnotation is the key of the annotation for locks.
const LockAnnotation = Prefix + "lock"

const lockPrefix = "lock."

// maxLock bounds the name of a lock, and leaves room for the prefix of the Lease's name.
const maxLock = maxName - len(lockPrefix)

// Lock claims one slot, for which pods of a whole namespace compete.
var Lock = &Kind{
	Key: LockAnnotation, Word: "lock", Ask: LockAnnotation, Scope: ScopeNamespace, Forwards: true, TakesTurns: true, Awaited: true,
	parse:  parseLocks,
	slots:  func(c Claim, _ Workload) []string { return []string{LockLease(c.Name)} },
	isSlot: isLockSlot,
}

// LockLease returns the name of the Lease of a lock.
func LockLease(name string) string { return lockPrefix + name }

func parseLocks(value string) ([]Claim, string) {
	names, problem := list(value, "lock", func(name string) string {
		if isSized(name) {
			return fmt.Sprintf("a lock has one holder, and takes no number: leave out the = and what follows, or use %s for several holders, as in pool=3", SemaphoreAnnotation)
		}
		if !isLock(name) {
			return fmt.Sprintf("a lock's name is at most %d lower-case letters, digits, dashes and dots, with a letter or digit at both ends", maxLock)
		}
		return ""
	})
	var locks []Claim
	for _, name := range names {
		locks = append(locks, Claim{Name: name, Size: 1})
	}
	return locks, problem
}

// isLockSlot reports whether the text can be the name of a lock's Lease.
func isLockSlot(lease string) bool {
	name, ok := strings.CutPrefix(lease, lockPrefix)
	return ok && isLock(name)
}

// isLock reports whether a lock can have the name.
func isLock(name string) bool { return len(name) <= maxLock && isSubdomain(name) }
