// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"slices"
	"strings"
	"time"
)

// kinds are all kinds of claims. Each kind is in a file of its own, with the syntax of its claims
// and the names of their Leases.
var kinds = []*Kind{Singleton, Lock, Election, Semaphore, Shards, RWLock, Once, StartLock, Arrivals, Variable}

// Kinds returns all kinds of claims.
func Kinds() []*Kind { return slices.Clone(kinds) }

// The list "rolling" has the kinds of workloads that give each pod template a number. Each kind is
// spelt as in the name of a singleton's Lease. Pods of other workloads have no revision.
var rolling = []string{"deployment", "statefulset", "daemonset", "rollout-argoproj-io"}

// kindOf returns the kind of the claims that can have a Lease of this name. The result is nil if no
// claim can have such a Lease.
func kindOf(lease string) *Kind {
	i := slices.IndexFunc(kinds, func(k *Kind) bool { return k.isSlot(lease) })
	if i < 0 {
		return nil
	}
	return kinds[i]
}

// DurationOf returns the default lease duration for a claim on the Lease. The default applies if
// the pod's annotations state no lease duration.
func DurationOf(lease string) time.Duration {
	if kind := kindOf(lease); kind != nil {
		return kind.duration()
	}
	return DefaultLeaseDuration
}

// IsSlot reports whether the text can be the name of a claim's Lease. Enroll gives rights only
// on Leases with such names, and on their next Leases. IsSlot judges a shortened name by the
// part before the hash.
func IsSlot(lease string) bool { return kindOf(lease) != nil }

// ScopeOf returns the scope of the claims that can have a Lease of this name. The result is empty
// if no claim can have such a Lease.
func ScopeOf(lease string) Scope {
	if strings.HasPrefix(lease, revisionPrefix) {
		return ScopeWorkload
	}
	if kind := kindOf(lease); kind != nil {
		return kind.Scope
	}
	return ""
}

// AnyOne reports whether the Lease is one of several slots, of which a pod needs only one.
func AnyOne(lease string) bool {
	kind := kindOf(lease)
	return kind != nil && kind.AnyOne
}

// HasNextLease reports whether the slot has a next Lease: whether pods of several revisions
// may compete for the slot. A lock always has a next Lease, because pods of any workload may
// compete. A singleton has a next Lease if the slot's name contains the kind of a workload with
// revisions.
func HasNextLease(slot string) bool {
	kind := kindOf(slot)
	if kind == nil || !kind.TakesTurns {
		return false
	}
	_, rest, _ := strings.Cut(slot, ".")
	of, _, _ := strings.Cut(rest, ".")
	return kind.Scope == ScopeNamespace || slices.Contains(rolling, of)
}
