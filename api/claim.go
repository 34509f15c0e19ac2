// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Claim is one request of a pod for slots, by annotation.
type Claim struct {
	Kind *Kind
	// Name distinguishes claims of one kind; empty for a claim whose slot has the name of
	// the pod's workload.
	Name string
	// Size is the number of pods that may hold at once. Most kinds have Size slots, of which a
	// pod needs one. A read-write lock always has [RWLockSlots] slots, and Size counts its
	// readers.
	Size int
	// Key is the key of a once claim with a name; empty for other claims. The webhook
	// computes the key of a once claim without a name from the revision of the pod, or from
	// its Job.
	Key string
}

// Scope returns the group of pods that compete for the claim's slots.
func (c Claim) Scope() Scope {
	if c.Name == "" {
		return ScopeWorkload
	}
	return c.Kind.Scope
}

// Slots returns the names of the Leases of a claim by a pod of the workload.
func (c Claim) Slots(of Workload) []string { return c.Kind.slots(c, of) }

// Scope is the group of pods within which claims of one name mean the same slots.
type Scope string

const (
	// ScopeWorkload means the pods of one workload.
	ScopeWorkload Scope = "workload"
	// ScopeNamespace means all pods of the namespace.
	ScopeNamespace Scope = "namespace"
)

// Kind is one kind of claim. A kind with an annotation of its own is in a row of [Annotations].
// All other kinds are for claims by the local API, and for barriers.
type Kind struct {
	// Key is the key of the annotation.
	Key string
	// Ask is the annotation that error messages propose to a person.
	Ask string
	// Scope is the scope of a claim with a name.
	Scope Scope
	// Forwards reports that the standbys of a claim can forward ports, because the claim
	// has one holder.
	Forwards bool
	// TakesTurns reports that the slot of a claim can go from an old revision of a workload
	// to a new one. A claim with several holders does not take turns, because no pod has to
	// wait for the end of another.
	TakesTurns bool
	// UntilSuccess reports that a hold lasts until one container has succeeded. The releasing
	// write then adds the claim's Key to the done keys of the Lease.
	UntilSuccess bool
	// UntilReady reports that a hold lasts until the started application is ready. The
	// application then goes on without the slot.
	UntilReady bool
	// Sole reports that a pod with a claim of this kind can have no other claim.
	Sole bool

	// parse reads an annotation's value, and returns the claims without their Kind.
	// The second result is the problem with the value; empty for none.
	parse func(value string) ([]Claim, string)
	slots func(c Claim, of Workload) []string
	// isSlot reports whether the text can be the name of the Lease of a claim of this kind.
	// Enroll gives rights only on Leases with a name that some kind accepts, and on their next
	// Leases.
	isSlot func(lease string) bool
}

// claims returns the claims of an annotation's value. The second result is the problem
// with the value; empty for none.
func (k *Kind) claims(value string) ([]Claim, string) {
	claims, problem := k.parse(value)
	for i := range claims {
		claims[i].Kind = k
	}
	return claims, problem
}

// The kinds of claims.
var (
	// Singleton claims one slot, for which the pods of a workload compete.
	Singleton = &Kind{
		Key: SingletonAnnotation, Ask: SingletonAnnotation + `: "true"`, Scope: ScopeWorkload, Forwards: true, TakesTurns: true,
		parse:  parseSingleton,
		slots:  func(c Claim, of Workload) []string { return []string{SingletonLease(of, c.Name)} },
		isSlot: isSingletonSlot,
	}
	// Lock claims one slot, for which pods of a whole namespace compete.
	Lock = &Kind{
		Key: LockAnnotation, Ask: LockAnnotation, Scope: ScopeNamespace, Forwards: true, TakesTurns: true,
		parse:  parseLocks,
		slots:  func(c Claim, _ Workload) []string { return []string{LockLease(c.Name)} },
		isSlot: isLockSlot,
	}
	// Semaphore claims any one of several slots, for which pods of a namespace compete.
	Semaphore = &Kind{
		Key: SemaphoreAnnotation, Ask: SemaphoreAnnotation, Scope: ScopeNamespace, Sole: true,
		parse:  parseSemaphore,
		slots:  semaphoreSlots,
		isSlot: IsSemaphoreSlot,
	}
	// Shards claims any one of several slots, for which the pods of a workload compete. The
	// number of a slot selects the part of the work that its holder does.
	Shards = &Kind{
		Key: ShardsAnnotation, Ask: ShardsAnnotation, Scope: ScopeWorkload, Sole: true,
		parse:  parseShards,
		slots:  shardSlots,
		isSlot: isShardSlot,
	}
	// Once claims one slot. The pods run a container under that slot, one after another, until
	// the container succeeds. The Lease then records the key, and no other pod repeats the work
	// of that key. Pods of the whole namespace compete for a claim with a name, and pods of one
	// workload for a claim without a name.
	Once = &Kind{
		Key: OnceAnnotation, Ask: OnceAnnotation, Scope: ScopeNamespace, UntilSuccess: true, Sole: true,
		parse:  parseOnce,
		slots:  onceSlots,
		isSlot: IsOnceSlot,
	}
	// StartLock claims one slot, for which pods of a namespace compete. A pod holds the slot
	// only while its application starts. So the applications start one after another, and then
	// run at the same time.
	StartLock = &Kind{
		Key: StartLockAnnotation, Ask: StartLockAnnotation, Scope: ScopeNamespace, UntilReady: true,
		parse:  parseStartLock,
		slots:  func(c Claim, _ Workload) []string { return []string{StartLockLease(c.Name)} },
		isSlot: isStartLockSlot,
	}
	// Election claims one slot, for which pods of a namespace compete by the local API. A lock
	// with the same name has another slot.
	Election = &Kind{
		Key: LocalAnnotation, Ask: LocalAnnotation, Scope: ScopeNamespace,
		slots:  func(c Claim, _ Workload) []string { return []string{ElectionLease(c.Name)} },
		isSlot: isElectionSlot,
	}
	// RWLock claims any one of several slots for a reader, or all of them for a writer. The
	// program says in each bid whether it is a reader or a writer.
	RWLock = &Kind{
		Key: LocalAnnotation, Ask: LocalAnnotation, Scope: ScopeNamespace,
		parse: func(value string) ([]Claim, string) {
			name, size, problem := parseRWLock(value)
			return []Claim{{Name: name, Size: size}}, problem
		},
		slots:  func(c Claim, _ Workload) []string { return rwLockSlots(c.Name) },
		isSlot: IsRWLockSlot,
	}
	// Arrivals is the kind of a barrier. A pod arrives by a Lease, either in an init container or
	// through the local API. The name of that Lease has the UID of the pod's Job, which no
	// annotation has. So the claim itself names no slot.
	Arrivals = &Kind{
		Key: LocalAnnotation, Ask: LocalAnnotation, Scope: ScopeWorkload,
		parse: func(value string) ([]Claim, string) {
			b, problem := parseBarrier(value)
			return []Claim{{Name: b.Name, Size: b.Size}}, problem
		},
		slots:  func(Claim, Workload) []string { return nil },
		isSlot: isArrival,
	}
	// Variable claims no slot. Several pods of a namespace can use one Variable at the same
	// time, by the local API.
	Variable = &Kind{
		Key: LocalAnnotation, Ask: LocalAnnotation, Scope: ScopeNamespace,
		parse:  parseVariable,
		slots:  func(Claim, Workload) []string { return nil },
		isSlot: func(string) bool { return false },
	}
)

func parseSingleton(value string) ([]Claim, string) {
	switch {
	case value == "true":
		return []Claim{{Size: 1}}, ""
	case value == "false":
		return nil, ""
	case len(value) <= maxLabel && ambiguous(value):
		return nil, `write "true" or "false"`
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

func parseLocks(value string) ([]Claim, string) {
	names, problem := list(value, "lock", func(name string) string {
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

func parseSemaphore(value string) ([]Claim, string) {
	name, text, sized := strings.Cut(strings.TrimSpace(value), "=")
	size, err := strconv.Atoi(text)
	switch {
	case strings.Contains(value, ","):
		return nil, "name one semaphore: several in one pod come with a later version"
	case !sized:
		return nil, "write a name and how many pods may run, as in pool=3"
	case err != nil || size < 1 || size > maxSemaphore || strconv.Itoa(size) != text:
		return nil, fmt.Sprintf("after the = write how many pods may run: a number from 1 to %d", maxSemaphore)
	case !isSemaphore(name):
		return nil, fmt.Sprintf("a semaphore's name is at most %d lower-case letters, digits, dashes and dots, with a letter or digit at both ends", maxSemaphoreName)
	}
	return []Claim{{Name: name, Size: size}}, ""
}

func parseOnce(value string) ([]Claim, string) {
	name, key, keyed := strings.Cut(strings.TrimSpace(value), "=")
	switch {
	case value == "true":
		return []Claim{{Size: 1}}, ""
	case value == "false":
		return nil, ""
	case strings.Contains(value, ","):
		return nil, "write one name=key: several once claims in one pod come with a later version"
	case !keyed:
		return nil, `write "true", "false", or a name and the key of the work that is to run once, as in schema=7`
	case !isOnce(name):
		return nil, fmt.Sprintf("a name before the = is at most %d lower-case letters, digits, dashes and dots, with a letter or digit at both ends", maxOnce)
	case !IsKey(key):
		return nil, fmt.Sprintf("a key after the = is at most %d letters, digits, dashes, dots and underscores, with a letter or digit at both ends", maxLabel)
	}
	return []Claim{{Name: name, Size: 1, Key: key}}, ""
}

func parseStartLock(value string) ([]Claim, string) {
	name := strings.TrimSpace(value)
	switch {
	case strings.Contains(value, ","):
		return nil, "name one start lock: a pod can have no other"
	case !isStartLock(name):
		return nil, fmt.Sprintf("a start lock's name is at most %d lower-case letters, digits, dashes and dots, with a letter or digit at both ends", maxStartLock)
	}
	return []Claim{{Name: name, Size: 1}}, ""
}

func onceSlots(c Claim, of Workload) []string {
	if c.Name == "" {
		return []string{RevisionLease(of)}
	}
	return []string{OnceLease(c.Name)}
}

func parseShards(value string) ([]Claim, string) {
	count, err := strconv.Atoi(value)
	if err != nil || count < 1 || count > maxShards || strconv.Itoa(count) != value {
		return nil, fmt.Sprintf("write how many shards the work has: a number from 1 to %d", maxShards)
	}
	return []Claim{{Size: count}}, ""
}

func shardSlots(c Claim, of Workload) []string {
	var slots []string
	for i := range c.Size {
		slots = append(slots, ShardLease(ShardGroup(of), i))
	}
	return slots
}

func semaphoreSlots(c Claim, _ Workload) []string {
	var slots []string
	for i := range c.Size {
		slots = append(slots, SemaphoreLease(c.Name, i))
	}
	return slots
}

// Any reports whether any one of the pod's slots is enough to run. The result is false if
// the pod needs all of them.
func (r Request) Any() bool {
	return slices.ContainsFunc(r.Claimed, func(c Claim) bool { return c.Size > 1 })
}

// Within returns the first claim of the scope, if there is one.
func (r Request) Within(scope Scope) (Claim, bool) {
	return r.first(func(c Claim) bool { return c.Scope() == scope })
}

func (r Request) first(is func(Claim) bool) (Claim, bool) {
	i := slices.IndexFunc(r.Claimed, is)
	if i < 0 {
		return Claim{}, false
	}
	return r.Claimed[i], true
}

// Once returns the pod's once claim, if there is one.
func (r Request) Once() (Claim, bool) {
	return r.first(func(c Claim) bool { return c.Kind.UntilSuccess })
}

// Shards returns the number of shards of the pod's work; zero for a pod without shards.
func (r Request) Shards() int {
	c, _ := r.first(func(c Claim) bool { return c.Kind == Shards })
	return c.Size
}

// duration returns the lease duration for a claim of this kind by a pod whose annotations state
// none.
func (k *Kind) duration() time.Duration {
	if k.UntilSuccess {
		return onceLeaseDuration
	}
	return DefaultLeaseDuration
}

// DurationOf returns the lease duration for a claim on the Lease by a pod whose annotations
// state none.
func DurationOf(lease string) time.Duration {
	if kind := kindOf(lease); kind != nil {
		return kind.duration()
	}
	return DefaultLeaseDuration
}

// Slots returns the names of the Leases that a pod of the workload claims, in the
// order in which every agent acquires them.
func (r Request) Slots(of Workload) []string {
	var slots []string
	for _, c := range r.Claimed {
		slots = append(slots, c.Slots(of)...)
	}
	slices.Sort(slots)
	return slots
}

// IsSlot reports whether the text can be the name of a claim's Lease. Enroll gives rights only
// on Leases with such names, and on their next Leases. IsSlot judges a shortened name by the
// part before the hash.
func IsSlot(lease string) bool { return kindOf(lease) != nil }

// ScopeOf returns the scope of the claims that can name the Lease; empty if none can.
func ScopeOf(lease string) Scope {
	if strings.HasPrefix(lease, revisionPrefix) {
		return ScopeWorkload
	}
	if kind := kindOf(lease); kind != nil {
		return kind.Scope
	}
	return ""
}

// rolling are the kinds of workloads that number their templates, as the names of
// singletons' Leases spell them. Pods of other workloads have no revision.
var rolling = []string{"deployment", "statefulset", "daemonset", "rollout-argoproj-io"}

// HasNextLease reports whether the slot has a next Lease, because pods of several revisions
// may compete for it. A lock always has one, because pods of any workload may compete. A
// singleton has one if its name contains the kind of a workload with revisions.
func HasNextLease(slot string) bool {
	kind := kindOf(slot)
	if kind == nil || !kind.TakesTurns {
		return false
	}
	_, rest, _ := strings.Cut(slot, ".")
	of, _, _ := strings.Cut(rest, ".")
	return kind.Scope == ScopeNamespace || slices.Contains(rolling, of)
}

// kinds are all kinds of claims that have Leases.
var kinds = []*Kind{Singleton, Lock, Semaphore, Shards, Once, StartLock, Election, RWLock, Arrivals}

// kindOf returns the kind of the claims that can name the Lease; nil if none can.
func kindOf(lease string) *Kind {
	i := slices.IndexFunc(kinds, func(k *Kind) bool { return k.isSlot(lease) })
	if i < 0 {
		return nil
	}
	return kinds[i]
}
