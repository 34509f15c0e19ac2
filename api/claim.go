// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
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
	// Size is the number of pods that may hold at once. A claim of most kinds has Size slots, of
	// which a pod needs one. A read-write lock always has [RWLockSlots] slots, and Size counts
	// its readers.
	Size int
	// Key is the key of a once claim with a name; empty for other claims. For a once claim
	// without a name, the webhook computes the key from the revision of the pod, or from the
	// pod's Job.
	Key string
}

// Scope returns the group of pods that compete for the claim's slots.
func (c Claim) Scope() Scope {
	if c.Name == "" {
		return ScopeWorkload
	}
	return c.Kind.Scope
}

// Slots returns the names of the claim's Leases, for a pod of the given workload.
func (c Claim) Slots(of Workload) []string { return c.Kind.slots(c, of) }

// any reports whether a pod needs only one of the claim's slots. One slot of one is all of them.
func (c Claim) any() bool { return c.Kind.AnyOne && c.Size > 1 }

// Need returns what a program needs that bids for the claim by the local API.
func (c Claim) Need() Need {
	n := Need{Slots: c.Slots(Workload{}), Any: c.any()}
	if c.Kind == RWLock {
		n.Readers = c.Size
	}
	return n
}

// Need says which slots a pod needs for a hold. The packages of the agent pass the whole Need on, so a
// further number of a kind of claim is a field here.
type Need struct {
	// Slots are the names of the Leases, in the order in which they are acquired. A pod that has only
	// a start lock has no Slots.
	Slots []string
	// Any reports that the pod needs only one of the slots, whichever is free. If Any is false, the
	// pod needs all slots.
	Any bool
	// Readers is the size n of a read-write lock: at most n readers may hold the lock at once.
	// Readers is zero for any other claim. The first slot is the intent. Each reader needs any
	// one of the first n slots after the intent. A writer needs the intent and all other slots, even
	// if these are more than n.
	Readers int
	// Shards is the number of shards into which the work is divided; zero for slots without a
	// stamp. A pod acquires and keeps only slots whose stamp admits this number.
	Shards int
	// OnceKey is the key of the pod's once claim; empty for other claims. Run is the run (a Job) whose
	// shards the pod works through, each until its success in that run; empty for other pods. The pod
	// acquires no slot whose Lease has this run among its done keys.
	OnceKey, Run string
}

// Enough reports whether so many of the slots are enough for a hold.
func (n Need) Enough(slots int) bool { return slots == len(n.Slots) || n.Any && slots > 0 }

// Scope is a group of pods. Within the group, claims of one kind and one name mean the same slots.
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
	// Key is the key of the annotation that has the claims of this kind.
	Key string
	// Word names the kind in the local API, as in lock/NAME; empty if the local API has no such
	// claim.
	Word string
	// Ask is the annotation that error messages propose to a person.
	Ask string
	// Scope is the scope of a claim with a name.
	Scope Scope
	// Forwards reports that the standbys of a claim can forward ports, because the claim
	// has one holder.
	Forwards bool
	// TakesTurns reports that the slot of a claim can go from an old revision of a workload
	// to a new one. If a claim permits several holders, pods of both revisions can hold at once.
	// Such a claim takes no turns.
	TakesTurns bool
	// UntilSuccess reports that a hold lasts until one container has succeeded. The releasing
	// write then adds the claim's Key to the done keys of the Lease.
	UntilSuccess bool
	// UntilReady reports that a hold lasts until the started application is ready. The
	// application then goes on without the slot.
	UntilReady bool
	// Sole reports that a pod with a claim of this kind may have no other claim. If StartsInTurn is
	// true, such a pod may still have a second claim, of a kind with UntilReady.
	Sole, StartsInTurn bool
	// Sized reports that the value of a claim has a size, as in NAME=SIZE, because several pods
	// hold at once.
	Sized bool
	// AnyOne reports that a claim has as many slots as its size, and that a pod needs only one of
	// them, whichever is free.
	AnyOne bool
	// Awaited reports that a condition of another pod may name the claim's Lease.
	Awaited bool

	// parse reads an annotation's value, and returns the claims without their Kind.
	// The second result is the problem with the value; empty for none.
	parse func(value string) ([]Claim, string)
	slots func(c Claim, of Workload) []string
	// isSlot reports whether the text can be the name of the Lease of a claim of this kind.
	// Enroll gives rights only on Leases with a name that some kind accepts, and on their next
	// Leases.
	isSlot func(lease string) bool
}

// Name returns the word by which a person names the kind, as in lock/NAME. The names of all Leases
// of the kind begin with that word.
func (k *Kind) Name() string {
	if k.Word != "" {
		return k.Word
	}
	return strings.TrimPrefix(k.Key, Prefix)
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

// duration returns the default lease duration for a claim of this kind. The default applies if the
// pod's annotations state no lease duration.
func (k *Kind) duration() time.Duration {
	if k.UntilSuccess {
		return onceLeaseDuration
	}
	return DefaultLeaseDuration
}

// cutNumber divides a name at its last dot, and reads the number behind the dot. If the text behind
// the dot is not a number, the results are the whole name and -1. A name without a dot, or with
// another spelling of a number (07 for 7), has the same results.
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

// isUnshortened reports whether the function "is" accepts the name that the Lease had before a cut
// by [shortName]. Only the first part of a cut name is known. So "is" must accept that part,
// completed by at least one of the texts in the list [endings]. A name without a cut is judged as
// a whole.
func isUnshortened(lease string, is func(string) bool) bool { return isShortenedTo(lease, maxName, is) }

// isShortenedTo returns the result of [isUnshortened] for a name that [shorten] has kept within the
// given limit.
func isShortenedTo(name string, limit int, is func(string) bool) bool {
	if len(name) != limit {
		return len(name) < limit && is(name)
	}
	cut := limit - endLength
	mark, hash := name[cut:cut+len(hashMark)], name[cut+len(hashMark):]
	return mark == hashMark && strings.Trim(hash, "0123456789abcdef") == "" &&
		slices.ContainsFunc(endings, func(ending string) bool { return is(name[:cut] + ending) })
}

// endings are the texts that complete a slot's name after a cut by [shortName]. The text "x" is for
// a cut inside the workload's name, or right in front of that name. The text "x.x" is for a cut in
// the part by [Workload.kindPart], and ".x" for a cut right after that part. In that part, two
// dashes stand for each dash of the workload's kind or group. The text "-x.x" is for a cut between
// two such dashes.
var endings = []string{"x", "x.x", ".x", "-x.x"}
