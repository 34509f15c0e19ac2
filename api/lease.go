// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
)

const (
	lockPrefix      = "lock."
	singletonPrefix = "singleton"
)

// Workload is the top-most controller of a pod, or the pod itself if it has
// none: the group within which a singleton is single.
type Workload struct {
	// Group of the API, without its version; empty for the core group.
	Group string
	Kind  string
	Name  string
}

// String is Kind/name, with the group for kinds that Kubernetes does not have.
func (w Workload) String() string {
	if w.builtin() {
		return w.Kind + "/" + w.Name
	}
	return w.Kind + "." + w.Group + "/" + w.Name
}

func (w Workload) builtin() bool {
	return w.Group == "" || w.Group == "apps" || w.Group == "batch"
}

// LockLease is the name of the Lease of a lock.
func LockLease(name string) string { return lockPrefix + name }

// SingletonLease is the name of the Lease of a workload's singleton; name is
// empty for the plain one.
//
// Two singletons have the same Lease only if they are the same:
//   - the first dot ends "singleton" or "singleton-<name>" (a name is a DNS
//     label), so it gives the name back and tells a singleton from a lock;
//   - the second dot ends the kind; what follows is the workload's name, which
//     may have dots of its own;
//   - within the kind's part the first single dash separates kind and group,
//     because dashes of either are doubled, and every other single dash is a
//     dot of the group. (Both begin and end with a letter or digit, as do the
//     parts of a group, so a run of dashes is never made of two origins.)
//     Kinds of Kubernetes' own groups have no group appended; their names are
//     all different;
//   - a name that is too long ends in the hash of the whole.
//
// Kinds are written in lower case: two kinds of one group that differ in case
// alone would share a slot, which excludes too much and never too little.
func SingletonLease(group Workload, name string) string {
	var b strings.Builder
	b.WriteString(singletonPrefix)
	if name != "" {
		b.WriteString("-" + name)
	}
	double := strings.NewReplacer("-", "--", ".", "-")
	b.WriteString("." + strings.ReplaceAll(strings.ToLower(group.Kind), "-", "--"))
	if !group.builtin() {
		b.WriteString("-" + double.Replace(group.Group))
	}
	b.WriteString("." + group.Name)
	return shorten(b.String())
}

// IsSlot: the Lease's name is one that annotations can ask for.
func IsSlot(lease string) bool {
	for _, prefix := range []string{lockPrefix, singletonPrefix + ".", singletonPrefix + "-"} {
		if strings.HasPrefix(lease, prefix) {
			return true
		}
	}
	return false
}

// shorten keeps a name within the limit for objects, by the hash of the whole.
func shorten(name string) string {
	if len(name) <= maxName {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	hash := hex.EncodeToString(sum[:16])
	return strings.TrimRight(name[:maxName-1-len(hash)], "-.") + "-" + hash
}

// Slots are the names of the Leases that a pod of the workload claims, in the
// order in which they are acquired: sorted, the same for everybody.
func (r Request) Slots(of Workload) []string {
	var slots []string
	if r.Singleton {
		slots = append(slots, SingletonLease(of, r.SingletonName))
	}
	for _, name := range r.Locks {
		slots = append(slots, LockLease(name))
	}
	slices.Sort(slots)
	return slots
}
