// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package step decides what enroll writes: which Leases it frees, which Leases and rights it sweeps,
// and which stamps it writes on the Leases of shards. Facts and the time go in, decisions come out. The
// package sends nothing, reads no clock, and knows no type of Kubernetes. Package enroll carries the
// decisions out through controller-runtime; the model of package sim/world, by the simulated network.
//
// The caller promises that facts are as fresh as each function demands, and that each write replaces
// exactly the version of the object that the facts show.
//
// # Shards
//
// Two pods that expect different numbers of shards never hold shards at the same time. An agent
// acquires a Lease only while the Lease's stamp is open, and has the number and the run that the
// agent's pod expects. The caller reads all Leases of the group in one consistent list.
//
//   - The stamp of shard 0 is the decision of the group: a number of shards, a run, and an
//     epoch. A change of the number or of the run begins with a closed stamp of the next epoch
//     on the Lease of shard 0.
//   - Then each other Lease of the group gets the same closed stamp, even the Lease of a shard
//     beyond the new number. Each such write changes the version of its Lease. So
//     a delayed write of an agent, or of another enroll with an older list, fails.
//   - The holder of a closed Lease drains, and releases. If a closed Lease has expired, enroll
//     removes its holder, and leaves the stamp closed. The last holder cannot come back,
//     because no agent acquires a closed Lease.
//   - A Lease is opened only if each Lease of the list has the epoch of shard 0, and each
//     closed Lease has no holder. A closed Lease without a holder stays without a holder, so
//     the list may be old.
//
// Two processes may want different numbers at the same time. Suppose that one process opens a Lease
// by a delayed write. The write fails if the other process has already closed that Lease for its
// own decision. Otherwise, the other process finds the Lease open, closes it, and waits until the
// Lease has no holder. So two such processes delay each other, and break no rule.
//
// Not guaranteed: if a person removes the stamp of shard 0, all holders of the group release once,
// and enroll then opens the Leases again. The same happens if a person deletes the Lease of shard 0
// while no pod holds that Lease.
package step

import (
	"cmp"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// Facts are what the caches of enroll show of a namespace.
type Facts struct {
	Claims Claims
	// Leases are the Leases that enroll made, by name.
	Leases map[string]*Lease
	Roles  *Roles
}

// Unknown is the holder with which enroll creates the Lease of a slot. No pod has this identity,
// because a pod's identity contains an underscore.
const Unknown = api.UnknownHolder

// Lease is what the decisions need of a Lease that enroll made.
type Lease struct {
	Name, UID, Version string
	// Holder is empty for a free Lease.
	Holder   string
	Duration time.Duration
	// Renewed is an instant of the last writer's clock; zero for none. No rule of safety reads it.
	Renewed     time.Time
	Annotations map[string]string
	// Owned reports that the garbage collector deletes the Lease after its Job.
	Owned bool
}

// NewLease returns the Lease that enroll creates for a claimed slot. All pods wait for the longest
// duration ever claimed under its name, because an agent may hold the slot by an earlier Lease.
func NewLease(slot string, claim *Claim, roles *Roles) Lease {
	longest := max(claim.Duration, roles.Duration(slot))
	return Lease{Name: slot, Holder: Unknown, Duration: longest}
}

// Fresh reports whether no agent can have held the Lease, so that enroll may free it at once. The
// Roles must come from a consistent list, made after the Lease existed.
func (l *Lease) Fresh(roles *Roles) bool { return l.Holder == Unknown && !roles.Named(l.Name) }

// Adopted returns the Lease as enroll lets its claimants compete for it. Enroll frees a fresh Lease. The maker of a
// person's Lease cannot know how long pods have claimed the name, so enroll gives the Lease the duration that
// its own new Lease would have.
func (l *Lease) Adopted(claim *Claim, roles *Roles) Lease {
	adopted := *l
	switch {
	case l.Fresh(roles):
		adopted.Holder = ""
	case l.Holder == api.UnknownPerson:
		adopted.Duration = max(l.Duration, NewLease(l.Name, claim, roles).Duration)
	}
	return adopted
}

// Stamp returns the stamp of the Lease.
func (l *Lease) Stamp() api.Stamp { return api.ParseStamp(l.Annotations[api.StampAnnotation]) }

// recorded reports whether a Lease that is not paused has done keys, or the record of an open
// barrier. Done keys do not count in the Lease of a once claim without a name. The record of a
// barrier counts only in a Lease that the garbage collector deletes after the Job.
func (l *Lease) recorded() bool {
	if l == nil || api.PauseOf(l.Annotations) != "" {
		return false
	}
	done := l.Annotations[api.DoneAnnotation] != "" && !api.IsRevisionSlot(l.Name)
	return done || api.Opened(l.Annotations[api.OpenedAnnotation]) > 0 && l.Owned
}

// stays reports whether enroll keeps an unclaimed Lease, because a person has paused the slot, or
// because of a record.
func (l *Lease) stays() bool {
	return l != nil && api.PauseOf(l.Annotations) != "" || l.recorded()
}

// Claim combines all claims on one Lease.
type Claim struct {
	// Duration is the longest lease duration that a claimant asks for.
	Duration time.Duration
	// Accounts are the service accounts of the claimants, by the key that their Roles have.
	Accounts map[string]string
	// Replicas are the pods of each workload, for a slot with a next Lease. The key "" stands for pods
	// that no known workload made.
	Replicas map[string]Replicas
}

// Replicas are the pods of one workload that compete for a slot.
type Replicas struct {
	// Declared reports that the workload itself is known, and declares the number Wanted.
	Declared bool
	Wanted   int
	// Living counts the pods that have not ended, even if somebody has deleted them.
	Living int
}

// Alone decides whether the next Lease of the slot needs the hint [api.AloneAnnotation], by whether it
// has the hint now. The hint follows what the workloads declare, not what lives: a rollout of one
// replica, which has two pods for a while, or none, costs no write. The hint goes as soon as a second
// replica is declared, before that pod exists. It comes once the other pods are gone, because the
// standby that a smaller number leaves behind still answers.
func (c *Claim) Alone(hint bool) bool {
	wanted, living, strangers := 0, 0, 0
	for _, r := range c.Replicas {
		wanted, living = wanted+r.Wanted, living+r.Living
		if !r.Declared {
			strangers += r.Living
		}
	}
	switch {
	case wanted+strangers > 1:
		return false
	case wanted == 1 && living <= 1:
		return true
	}
	return hint
}

// Claims are the claims of a namespace, by the names of the Leases.
type Claims map[string]*Claim

// Add adds the claims of a pod or workload. A Lease that no claim can name is left out, so enroll
// gives no right on it.
func (c Claims) Add(key, account string, duration time.Duration, slots ...string) {
	for _, slot := range slots {
		if !api.IsSlot(slot) {
			continue
		}
		if c[slot] == nil {
			c[slot] = &Claim{Accounts: map[string]string{}}
		}
		// A user can change an annotation of a living pod to a value that the webhook would refuse.
		asked := min(max(cmp.Or(duration, api.DurationOf(slot)), api.MinLeaseDuration), api.MaxLeaseDuration)
		c[slot].Duration = max(c[slot].Duration, asked)
		c[slot].Accounts[key] = account
	}
}

// Count adds pods of a workload to the claims on those of the slots that have next Leases.
func (c Claims) Count(workload string, pods Replicas, slots ...string) {
	for _, slot := range slots {
		claim := c[slot]
		if claim == nil || !api.HasNextLease(slot) {
			continue
		}
		if claim.Replicas == nil {
			claim.Replicas = map[string]Replicas{}
		}
		all := claim.Replicas[workload]
		claim.Replicas[workload] = Replicas{
			Declared: all.Declared || pods.Declared, Wanted: all.Wanted + pods.Wanted, Living: all.Living + pods.Living,
		}
	}
}

// Hints returns the slots whose next Lease needs another hint [api.AloneAnnotation] than it has, with
// the hint that it needs. A next Lease that does not exist yet gets its hint when it is created.
func (f *Facts) Hints() map[string]bool {
	hints := map[string]bool{}
	for slot, claim := range f.Claims {
		if next := f.Leases[api.NextLease(slot)]; next != nil {
			hint := next.Annotations[api.AloneAnnotation] == api.AloneTrue
			if alone := claim.Alone(hint); alone != hint {
				hints[slot] = alone
			}
		}
	}
	return hints
}

// Sooner returns the shorter of two times. Zero stands for a time that never ends.
func Sooner(a, b time.Duration) time.Duration {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}
