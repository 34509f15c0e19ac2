// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// kinds are all kinds of claims. Each kind is in a file of its own, with the syntax of its claims
// and the names of their Leases.
var kinds = []*Kind{Singleton, Lock, Election, Semaphore, Shards, RWLock, Once, StartLock, Arrivals, Variable}

// Kinds returns all kinds of claims.
func Kinds() []*Kind { return slices.Clone(kinds) }

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
	return kind.Scope == ScopeNamespace || rolls(of)
}

// Rolls reports whether the workload gives each pod template a number, so that its pods have
// revisions.
func (w Workload) Rolls() bool { return rolls(w.kindPart()) }

// SingletonAnnotation is the key of the annotation for singletons.
const SingletonAnnotation = Prefix + "singleton"

const singletonPrefix = "singleton"

// Singleton claims one slot, for which the pods of a workload compete.
var Singleton = &Kind{
	Key: SingletonAnnotation, Ask: SingletonAnnotation + `: "true"`, Scope: ScopeWorkload, Forwards: true, TakesTurns: true, Awaited: true,
	parse:  parseSingleton,
	slots:  func(c Claim, of Workload) []string { return []string{SingletonLease(of, c.Name)} },
	isSlot: isSingletonSlot,
}

// SingletonLease returns the name of the Lease of a workload's singleton. The argument "name"
// is empty for a singleton without a name.
//
// Two singletons with the same Lease have the same name, and their workloads differ at most in
// the case of the workload's kind. The parts of the Lease's name prove this:
//   - The first dot ends "singleton" or "singleton-<name>": a name is a DNS label. The
//     singleton's name can be read back from that part, which also distinguishes a
//     singleton from a lock.
//   - The second dot ends the workload's kind and group. The workload's name follows, which
//     may have dots of its own.
//   - Between these two dots, each dash of the kind and of the group is doubled. So the first
//     single dash separates kind and group, and all further single dashes are dots of the
//     group.
//   - Kind, group and the parts of a group begin and end with a letter or digit. So
//     readKind can read a sequence of dashes in only one way.
//   - Kinds of Kubernetes' own groups have no group appended; their names all differ.
//   - A name that is too long ends in the hash of the whole, by [shortName].
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
	return shortName(b.String())
}

func parseSingleton(value string) ([]Claim, string) {
	switch {
	case value == "true":
		return []Claim{{Size: 1}}, ""
	case value == "false":
		return nil, ""
	case len(value) <= maxLabel && ambiguous(value):
		return nil, `write "true" or "false"`
	case isSized(value), strings.Trim(value, "0123456789") == "" && len(value) <= maxLabel && value != "":
		return nil, fmt.Sprintf(`a singleton has one holder, and takes no number: write "true", or use %s for several holders, as in pool=3`, SemaphoreAnnotation)
	case !isSingletonName(value):
		return nil, `write "true", "false" or a name: at most 63 lower-case letters, digits and dashes, with a letter or digit at both ends`
	}
	return []Claim{{Name: value, Size: 1}}, ""
}

// ambiguous reports whether a person may mean the value as a boolean. Without this check,
// the value "no" would claim a singleton with the name "no".
func ambiguous(value string) bool {
	return slices.Contains([]string{"0", "1", "f", "false", "n", "no", "off", "on", "t", "true", "y", "yes"}, strings.ToLower(value))
}

// isSingletonSlot reports whether the text can be the name of a singleton's Lease. In a shortened
// name, isSingletonSlot can judge only the part before the hash.
func isSingletonSlot(lease string) bool {
	if !strings.HasPrefix(lease, singletonPrefix) {
		return false // the rest of the name need not be read
	}
	return isUnshortened(lease, isSingletonLease)
}

// SingletonOf returns the part of a singleton's slot that has the name of the claim; false for any other
// slot.
func SingletonOf(slot string) (claim string, ok bool) {
	claim, _, _ = strings.Cut(slot, ".")
	return claim, isSingletonSlot(slot)
}

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

// isSingletonName reports whether a singleton can have the name.
func isSingletonName(name string) bool {
	return len(name) <= maxLabel && isLabel(name) && !ambiguous(name)
}

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
	isSlot: IsLockSlot,
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

// IsLockSlot reports whether the text can be the name of a lock's Lease.
func IsLockSlot(lease string) bool {
	name, ok := strings.CutPrefix(lease, lockPrefix)
	return ok && isLock(name)
}

// isLock reports whether a lock can have the name.
func isLock(name string) bool { return len(name) <= maxLock && isSubdomain(name) }

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

const electionPrefix = "election."

// Election claims one slot, for which pods of a namespace compete by the local API. The
// slot of a lock with the same name is a different slot.
var Election = &Kind{
	Key: LocalAnnotation, Word: "election", Ask: LocalAnnotation, Scope: ScopeNamespace,
	slots:  func(c Claim, _ Workload) []string { return []string{ElectionLease(c.Name)} },
	isSlot: isElectionSlot,
}

// ElectionLease returns the name of the Lease of an election.
func ElectionLease(name string) string { return electionPrefix + name }

// isElectionSlot reports whether the text can be the name of an election's Lease.
func isElectionSlot(lease string) bool {
	name, ok := strings.CutPrefix(lease, electionPrefix)
	return ok && len(lease) <= maxName && isSubdomain(name)
}
