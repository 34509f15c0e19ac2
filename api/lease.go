// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
)

const (
	lockPrefix      = "lock."
	electionPrefix  = "election."
	rwLockPrefix    = "rwlock."
	startPrefix     = "start-lock."
	semaphorePrefix = "semaphore."
	shardPrefix     = "shards."
	oncePrefix      = "once."
	// revisionPrefix begins the Leases of once claims without a name. No claim with a name
	// has such a Lease.
	revisionPrefix  = "once-revision."
	singletonPrefix = "singleton"
	barrierPrefix   = "barrier."
	nextPrefix      = "next."
)

// Workload is the top-most controller of a pod, or the pod itself if it has none. A
// singleton has one holder within a workload.
type Workload struct {
	// Group of the API, without its version; empty for the core group.
	Group string
	Kind  string
	Name  string
}

// String returns Kind/name, or Kind.group/name for a kind outside of Kubernetes' own groups.
func (w Workload) String() string {
	if w.builtin() {
		return w.Kind + "/" + w.Name
	}
	return w.Kind + "." + w.Group + "/" + w.Name
}

func (w Workload) builtin() bool {
	return w.Group == "" || w.Group == "apps" || w.Group == "batch"
}

// Valid reports whether an object of the API server can have the workload's group, kind and
// name. Callers need this check because a pod's owner references may contain any text. The text
// would become a part of a Lease's name, of an argument and of a comma-separated list.
func (w Workload) Valid() bool {
	group := w.Group == "" || (len(w.Group) <= maxName && isSubdomain(w.Group))
	return group && isKind(w.Kind) && len(w.Name) <= maxName && isSubdomain(w.Name)
}

// LockLease returns the name of the Lease of a lock.
func LockLease(name string) string { return lockPrefix + name }

// OnceLease returns the name of the Lease of a once claim. All keys of one name share the
// Lease, so the work of two keys never runs at once.
func OnceLease(name string) string { return oncePrefix + name }

// ElectionLease returns the name of the Lease of an election.
func ElectionLease(name string) string { return electionPrefix + name }

// RWLockLease returns the name of the Lease of one slot of a read-write lock.
func RWLockLease(name string, slot int) string { return rwLockPrefix + name + "." + strconv.Itoa(slot) }

// IntentLease returns the name of the Lease that a writer of a read-write lock acquires before
// the slots. The name's ending is not a number, so the Lease is not one of the slots.
func IntentLease(name string) string { return rwLockPrefix + name + intentEnding }

// intentEnding ends the name of each [IntentLease].
const intentEnding = ".intent"

// StartLockLease returns the name of the Lease of a start lock.
func StartLockLease(name string) string { return startPrefix + name }

// RevisionLease returns the name of the Lease for a workload's once claim, if that claim has no
// name.
func RevisionLease(of Workload) string {
	return ShortName(revisionPrefix + of.kindPart() + "." + of.Name)
}

// SemaphoreLease returns the name of the Lease of one slot of a semaphore. The slot's
// number follows the last dot, because a semaphore's name may have dots, too.
func SemaphoreLease(name string, slot int) string {
	return semaphorePrefix + name + "." + strconv.Itoa(slot)
}

// SingletonLease returns the name of the Lease of a workload's singleton; the argument name
// is empty for a singleton without a name.
//
// Two singletons have the same Lease only if they are the same:
//   - The first dot ends "singleton" or "singleton-<name>": a name is a DNS label. The
//     singleton's name can be read back from that part, which also distinguishes a
//     singleton from a lock.
//   - The second dot ends the kind. The workload's name follows, which may have dots
//     of its own.
//   - In the kind's part, each dash of the kind and of the group is doubled. So the first
//     single dash separates kind and group, and all further single dashes are dots of the
//     group.
//   - Kind, group and the parts of a group begin and end with a letter or digit. So
//     readKind can read a sequence of dashes in only one way.
//   - Kinds of Kubernetes' own groups have no group appended; their names all differ.
//   - A name that is too long ends in the hash of the whole, by [ShortName].
//
// The name has the kind in lower case. So two kinds of one group that differ in case alone
// share a slot. Then a pod may wait without need, but two holders never run at once.
func SingletonLease(group Workload, name string) string {
	var b strings.Builder
	b.WriteString(singletonPrefix)
	if name != "" {
		b.WriteString("-" + name)
	}
	b.WriteString("." + group.kindPart() + "." + group.Name)
	return ShortName(b.String())
}

// kindPart returns the part of a Lease's name that has the kind and the group.
func (w Workload) kindPart() string {
	part := strings.ReplaceAll(strings.ToLower(w.Kind), "-", "--")
	if w.builtin() {
		return part
	}
	return part + "-" + strings.NewReplacer("-", "--", ".", "-").Replace(w.Group)
}

// NextLease returns the name of the next Lease of a slot. A pod of a newer revision writes
// its identity into the next Lease to ask the holder to yield. No pod holds a slot by a
// next Lease, and no claim can name a next Lease.
func NextLease(slot string) string { return ShortName(nextPrefix + slot) }

// IsNextLease reports whether a Lease has the name of a next Lease.
func IsNextLease(lease string) bool { return strings.HasPrefix(lease, nextPrefix) }

// hashMark stands before the hash that ends a shortened name. The letter x keeps the
// name valid if the cut has left a dash or a dot at the end.
const hashMark = "x-"

// hashBytes is the number of bytes that ShortName takes of the SHA-256. By chance, two
// names practically never have the same 128 bits. A person who finds two such names can
// only make two workloads share a slot.
const hashBytes = 16

// endLength is the length of the mark and the hash that end a shortened name.
const endLength = len(hashMark) + 2*hashBytes

// ShortName keeps a name within the limit for the names of objects, by the hash of
// the whole name. A shortened name has exactly as many bytes as the limit. ShortName leaves
// only shorter names unchanged, so an unchanged name never equals a shortened one.
func ShortName(name string) string { return shorten(name, maxName) }

// shorten keeps a name within the limit as [ShortName] does.
func shorten(name string, limit int) string {
	if len(name) < limit {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return name[:limit-endLength] + hashMark + hex.EncodeToString(sum[:hashBytes])
}
