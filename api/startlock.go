// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"strings"
)

// StartLockAnnotation is the key of the annotation for start locks.
const StartLockAnnotation = Prefix + "start-lock"

const startPrefix = "start-lock."

// maxStartLock bounds the name of a start lock, and leaves room for the prefix of the
// Lease's name.
const maxStartLock = maxName - len(startPrefix)

// StartLock claims one slot, for which pods of a namespace compete. A pod holds the slot
// only while its application starts. So the applications start one after another, and then
// run at the same time.
var StartLock = &Kind{
	Key: StartLockAnnotation, Ask: StartLockAnnotation, Scope: ScopeNamespace, UntilReady: true,
	parse:  parseStartLock,
	slots:  func(c Claim, _ Workload) []string { return []string{StartLockLease(c.Name)} },
	isSlot: isStartLockSlot,
}

// StartLockLease returns the name of the Lease of a start lock.
func StartLockLease(name string) string { return startPrefix + name }

func parseStartLock(value string) ([]Claim, string) {
	name := strings.TrimSpace(value)
	switch {
	case strings.Contains(value, ","):
		return nil, "name one start lock: a pod can have no other"
	case isSized(name):
		return nil, fmt.Sprintf("a start lock lets one pod start at a time, and takes no number: leave out the = and what follows. To let several start at once, divide them among several start locks; %s limits how many run", SemaphoreAnnotation)
	case !isStartLock(name):
		return nil, fmt.Sprintf("a start lock's name is at most %d lower-case letters, digits, dashes and dots, with a letter or digit at both ends", maxStartLock)
	}
	return []Claim{{Name: name, Size: 1}}, ""
}

// isStartLockSlot reports whether the text can be the name of the Lease of a start lock.
func isStartLockSlot(lease string) bool {
	name, ok := strings.CutPrefix(lease, startPrefix)
	return ok && isStartLock(name)
}

// isStartLock reports whether a start lock can have the name.
func isStartLock(name string) bool { return len(name) <= maxStartLock && isSubdomain(name) }

// SplitSlots divides the slots of a pod into the slots that the pod holds while its
// application runs, and the slots of start locks.
func SplitSlots(slots []string) (life, start []string) {
	for _, s := range slots {
		if isStartLockSlot(s) {
			start = append(start, s)
		} else {
			life = append(life, s)
		}
	}
	return life, start
}
