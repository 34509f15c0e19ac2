// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"slices"
	"strconv"
	"strings"
)

// isLockSlot reports whether a lock can have the Lease.
func isLockSlot(lease string) bool {
	name, ok := strings.CutPrefix(lease, lockPrefix)
	return ok && isLock(name)
}

// IsSemaphoreSlot reports whether a semaphore can have the Lease. Only one spelling of a
// slot's number is valid, because a slot with two Leases could have two holders.
func IsSemaphoreSlot(lease string) bool {
	rest, ok := strings.CutPrefix(lease, semaphorePrefix)
	name, number := cutNumber(rest)
	return ok && number >= 0 && number < maxSemaphore && isSemaphore(name)
}

// IsOnceSlot reports whether a once claim can have the Lease.
func IsOnceSlot(lease string) bool {
	name, ok := strings.CutPrefix(lease, oncePrefix)
	return ok && isOnce(name) || IsRevisionSlot(lease)
}

// IsRevisionSlot reports whether a once claim without a name can have the Lease. In a
// shortened name, IsRevisionSlot can judge only the part before the hash.
func IsRevisionSlot(lease string) bool {
	return strings.HasPrefix(lease, revisionPrefix) && isUnshortened(lease, isRevisionLease)
}

// isElectionSlot reports whether an election can have the Lease.
func isElectionSlot(lease string) bool {
	name, ok := strings.CutPrefix(lease, electionPrefix)
	return ok && len(lease) <= maxName && isSubdomain(name)
}

// IsRWLockSlot reports whether a read-write lock can have the Lease, as a slot or as its intent.
func IsRWLockSlot(lease string) bool {
	rest, ok := strings.CutPrefix(lease, rwLockPrefix)
	if name, is := strings.CutSuffix(rest, intentEnding); is {
		return ok && isRWLock(name)
	}
	name, number := cutNumber(rest)
	return ok && number >= 0 && number < RWLockSlots && isRWLock(name)
}

// cutNumber divides a name at its last dot, and reads the number behind the dot. The number is
// -1 if the text there is no number, or spells a number in another way (07 for 7).
func cutNumber(name string) (before string, number int) {
	dot := strings.LastIndexByte(name, '.')
	if dot < 0 {
		return name, -1
	}
	n, err := strconv.Atoi(name[dot+1:])
	if err != nil || strconv.Itoa(n) != name[dot+1:] {
		return name, -1
	}
	return name[:dot], n
}

// isStartLockSlot reports whether a start lock can have the Lease.
func isStartLockSlot(lease string) bool {
	name, ok := strings.CutPrefix(lease, startPrefix)
	return ok && isStartLock(name)
}

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

// isSingletonSlot reports whether a singleton can have the Lease. In a shortened name,
// isSingletonSlot can judge only the part before the hash.
func isSingletonSlot(lease string) bool {
	if !strings.HasPrefix(lease, singletonPrefix) {
		return false // the rest of the name need not be read
	}
	return isUnshortened(lease, isSingletonLease)
}

// isUnshortened reports whether the function "is" accepts the name that the Lease had before a
// cut by [ShortName]. Only the first part of a cut name is known. So "is" must accept that part
// with at least one of the texts in endings.
func isUnshortened(lease string, is func(string) bool) bool { return isShortenedTo(lease, maxName, is) }

// isShortenedTo does the same as isUnshortened for a name that shorten has kept within the
// limit.
func isShortenedTo(name string, limit int, is func(string) bool) bool {
	if len(name) != limit {
		return len(name) < limit && is(name)
	}
	cut := limit - endLength
	mark, hash := name[cut:cut+len(hashMark)], name[cut+len(hashMark):]
	return mark == hashMark && strings.Trim(hash, "0123456789abcdef") == "" &&
		slices.ContainsFunc(endings, func(ending string) bool { return is(name[:cut] + ending) })
}

// endings are the texts that complete a workload's slot after the cut of [ShortName]. The
// cut may be in or before the workload's name (x). The cut may also be in the kind's part
// (x.x), right after that part (.x), or in a doubled dash (-x.x).
var endings = []string{"x", "x.x", ".x", "-x.x"}

// isSingletonLease reports whether [SingletonLease] can return the name without
// shortening it.
func isSingletonLease(lease string) bool {
	first, rest, _ := strings.Cut(lease, ".")
	if name, named := strings.CutPrefix(first, singletonPrefix+"-"); named {
		first = singletonPrefix
		if !isSingletonName(name) {
			return false
		}
	}
	return first == singletonPrefix && isWorkload(rest)
}

// isRevisionLease reports whether [RevisionLease] can return the name without shortening it.
func isRevisionLease(lease string) bool {
	rest, ok := strings.CutPrefix(lease, revisionPrefix)
	return ok && isWorkload(rest)
}

// isWorkload reports whether the text is the kind's part of a Lease's name, a dot, and the
// name of a workload.
func isWorkload(text string) bool {
	kind, name, _ := strings.Cut(text, ".")
	of, ok := readKind(kind)
	of.Name = name
	return ok && of.Valid()
}

// readKind reads the kind's part of a singleton's Lease. The first single dash
// separates kind and group. Every other single dash is a dot of the group, and a
// doubled dash is a dash. The part never contains one of Kubernetes' own groups.
func readKind(part string) (Workload, bool) {
	var words [2]strings.Builder
	at, dashes := 0, 0
	for i := 0; i <= len(part); i++ {
		if i < len(part) && part[i] == '-' {
			dashes++
			continue
		}
		switch {
		case dashes == 1 && at == 0:
			at = 1
		case dashes == 1:
			words[at].WriteByte('.')
		case dashes%2 == 1:
			return Workload{}, false
		default:
			words[at].WriteString(strings.Repeat("-", dashes/2))
		}
		dashes = 0
		if i < len(part) {
			words[at].WriteByte(part[i])
		}
	}
	read := Workload{Kind: words[0].String(), Group: words[1].String()}
	return read, read.Kind == strings.ToLower(read.Kind) && (at == 0 || !read.builtin())
}

// isLock reports whether a lock can have the name.
func isLock(name string) bool { return len(name) <= maxLock && isSubdomain(name) }

// isOnce reports whether a once claim can have the name.
func isOnce(name string) bool { return len(name) <= maxOnce && isSubdomain(name) }

// isBarrier reports whether a barrier can have the name.
func isBarrier(name string) bool { return len(name) <= maxBarrierName && isSubdomain(name) }

// isStartLock reports whether a start lock can have the name.
func isStartLock(name string) bool { return len(name) <= maxStartLock && isSubdomain(name) }

// isSemaphore reports whether a semaphore can have the name.
func isSemaphore(name string) bool { return len(name) <= maxSemaphoreName && isSubdomain(name) }

// isRWLock reports whether a read-write lock can have the name.
func isRWLock(name string) bool { return len(name) <= maxRWLock && isSubdomain(name) }

// isSingletonName reports whether a singleton can have the name.
func isSingletonName(name string) bool {
	return len(name) <= maxLabel && isLabel(name) && !ambiguous(name)
}

// isKind reports whether the text can be the kind of a Kubernetes object: a label of RFC
// 1035, in upper or lower case.
func isKind(kind string) bool {
	for _, c := range []byte(kind) {
		if c >= 0x80 {
			return false // ToLower makes ASCII letters of some of these characters
		}
	}
	lower := strings.ToLower(kind)
	return len(kind) <= maxLabel && isLabel(lower) && (lower[0] < '0' || lower[0] > '9')
}
