// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package step

import (
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// Right names a Role's right on a Lease. If the field Role is empty, the value names the Lease
// itself, together with the rights of all Roles on that Lease.
type Right struct{ Lease, Role string }

// Sighting is the state of a right, and the instant since which one process has seen that state.
// No time of another machine counts.
type Sighting struct {
	// uid and version are those of the Lease, if the right stands for a whole Lease. Both are
	// empty for the right of one Role, and for a deleted Lease that a Role still names. The
	// last holder of a deleted Lease may be alive. So the Role must name that Lease for a whole
	// lease duration.
	uid, version string
	since        time.Time
}

// Sightings are what one process has seen of some rights.
type Sightings = map[Right]Sighting

// Observe returns the sightings of the rights as they are now. If the Lease of a right has not
// changed, the right keeps the instant of its earlier sighting.
func Observe(before Sightings, rights map[Right]*Lease, now time.Time) Sightings {
	seen := make(Sightings, len(rights))
	for of, lease := range rights {
		s := Sighting{since: now}
		if lease != nil {
			s.uid, s.version = lease.UID, lease.Version
		}
		if b, ok := before[of]; ok && b.uid == s.uid && b.version == s.version {
			s = b
		}
		seen[of] = s
	}
	return seen
}

// Unclaimed returns the Leases that no pod and no workload claims, and the next Leases without a
// slot. The result also has Leases that no longer exist, if a Role still names them. Of a Lease
// that is still claimed, the function returns the rights of accounts that no longer claim it. A
// paused Lease stays with its rights, so the pause outlives all pods and workloads. A Lease with
// done keys stays, because work that is done must not run again, but the rights on that Lease are
// unclaimed. If the done keys are revisions, the Lease is unclaimed, because the revisions end with
// the workload. The record of an open barrier stays while the Job lives.
func (f *Facts) Unclaimed() map[Right]*Lease {
	unclaimed := map[Right]*Lease{}
	belonging := f.belonging()
	for name, lease := range f.Leases {
		if f.Claims[name] == nil && !belonging[name] && !lease.stays() {
			unclaimed[Right{Lease: name}] = lease
		}
	}
	for _, known := range f.Roles.All {
		for name := range known.Memories {
			c := f.Claims[name]
			switch {
			case c == nil && f.Leases[name].recorded():
				unclaimed[Right{Lease: name, Role: known.Name}] = nil
			case c == nil && f.Leases[name].stays():
			case c == nil:
				unclaimed[Right{Lease: name}] = f.Leases[name]
			case c.Accounts[known.Key] == "":
				unclaimed[Right{Lease: name, Role: known.Name}] = nil
			}
		}
	}
	return unclaimed
}

// belonging returns the next Leases of all known slots. A slot is known if a pod or a workload
// claims the slot, a Role names the slot, or the cache has the slot's Lease. Enroll sweeps each of
// these next Leases together with its slot.
func (f *Facts) belonging() map[string]bool {
	belonging := make(map[string]bool, len(f.Claims))
	for _, slots := range []iter.Seq[string]{maps.Keys(f.Claims), maps.Keys(f.Roles.Longest), maps.Keys(f.Leases)} {
		for slot := range slots {
			if api.HasNextLease(slot) {
				belonging[api.NextLease(slot)] = true
			}
		}
	}
	return belonging
}

// Due has the Leases and rights that have been unclaimed for a whole lease duration.
type Due struct {
	// Leases are to be deleted, with all rights on them.
	Leases map[string]bool
	// Rights are to be withdrawn, because the Role's account does not claim the Lease. The Lease
	// itself stays, because other accounts claim the Lease, or because of its record.
	Rights map[Right]bool
}

// Empty reports whether nothing is due.
func (d Due) Empty() bool { return len(d.Leases)+len(d.Rights) == 0 }

// Expire returns the unclaimed rights that have not changed for a whole lease duration, and the time
// until the next right expires.
//
// A holder that does not renew for a whole lease duration has stopped the application, so its Lease
// may be deleted. If other accounts claim the Lease, an account without a claim loses only its
// right, after the same time. That account has had no pod meanwhile, so none of its agents has
// renewed.
func (f *Facts) Expire(seen Sightings, now time.Time) (Due, time.Duration) {
	due := Due{Leases: map[string]bool{}, Rights: map[Right]bool{}}
	var again time.Duration
	for of, o := range seen {
		left := max(f.sweepAfter(of.Lease)-now.Sub(o.since), f.peoplesFor(of.Lease, o, now))
		switch {
		case left > 0:
			again = Sooner(again, left)
		case of.Role == "":
			due.Leases[of.Lease] = true
		default:
			due.Rights[of] = true
		}
	}
	f.keepLastRecords(due.Rights)
	return due, again
}

// peoplesLease is the time without a write after which enroll sweeps the Lease of a lock that only people have
// used. Without its Lease, the next person waits for a lease duration, so a lock of each night keeps it.
const peoplesLease = 24 * time.Hour

// peoplesFor returns the time for which enroll still keeps the Lease because only people have used it: no Role
// names it. A process that begins in that time counts from the last write by the writer's clock, because it has not
// seen that write. If that clock is wrong, this process keeps the Lease for no longer than the whole time.
func (f *Facts) peoplesFor(name string, o Sighting, now time.Time) time.Duration {
	lease := f.Leases[name]
	if lease == nil || !api.IsLockSlot(name) || f.Roles.Named(name) {
		return 0
	}
	return peoplesLease - max(now.Sub(o.since), now.Sub(lease.Renewed))
}

// sweepAfter returns the time for which a Lease must not change before enroll sweeps
// it. A holder that has not renewed for that long has stopped the application.
func (f *Facts) sweepAfter(name string) time.Duration {
	d := f.Roles.Duration(name)
	if lease := f.Leases[name]; lease != nil {
		d = max(d, lease.Duration)
	}
	if d == 0 {
		return api.DurationOf(name)
	}
	return d
}

// keepLastRecords excludes the rights that the Roles in the cache show to be the last records of
// their Leases. So such a right costs no request. Once another Role has the record, the new version
// of that Role causes the next sweep.
func (f *Facts) keepLastRecords(rights map[Right]bool) {
	if len(rights) == 0 {
		return
	}
	longest := f.claimantsLongest(f.Roles)
	for _, known := range f.Roles.All {
		for name := range known.Memories {
			if !f.forgettable(known, name, longest) {
				delete(rights, Right{Lease: name, Role: known.Name})
			}
		}
	}
}

// claimantsLongest returns, for each Lease, the longest duration in the Roles of its claimants. The
// Role of another account may forget a claimed Lease only if the duration in that Role is not
// longer than this longest duration. So the longest duration of a claimed Lease stays in some Role.
// Any Role may forget an unclaimed Lease that stays because of its record.
func (f *Facts) claimantsLongest(roles *Roles) map[string]int32 {
	longest := map[string]int32{}
	for _, known := range roles.All {
		for name, m := range known.Memories {
			if c := f.Claims[name]; c != nil && c.Accounts[known.Key] != "" {
				longest[name] = max(longest[name], m.Seconds)
			}
		}
	}
	return longest
}

// forgettable reports whether a Role may forget an expired right. The argument "longest" is the
// result of [Facts.claimantsLongest].
func (f *Facts) forgettable(known *Role, name string, longest map[string]int32) bool {
	seconds, claimed := longest[name]
	return claimed && seconds >= known.Memories[name].Seconds || f.Claims[name] == nil && f.Leases[name].recorded()
}

// Removal is what a Role forgets, in one write.
type Removal struct {
	// Leases are to be deleted first. The Role forgets those that are gone.
	Leases []string
	// Rights are names that the Role forgets, although their Leases stay.
	Rights []string
}

// Remove returns what each of the Roles forgets, in the order of the Roles. Remove takes from
// the due Leases and rights those that living pods claim, and returns them as "claimed". The due
// Leases that no Role names are to be deleted, too.
//
// The live claims and the Roles must come from consistent lists that are younger than the facts. A
// pod that the cache does not know yet may claim a due Lease. To delete that Lease would be safe, but
// would make the pod wait. If another process creates a Lease again after the list of the Roles, that
// process writes the new UID into the Role, and the write of this removal fails.
func (f *Facts) Remove(due Due, live Claims, roles *Roles) (removals []Removal, claimed []Right) {
	for name := range due.Leases {
		if live[name] != nil {
			delete(due.Leases, name)
			claimed = append(claimed, Right{Lease: name})
		}
	}
	longest := f.claimantsLongest(roles)
	for _, known := range roles.All {
		var r Removal
		for _, name := range slices.Sorted(maps.Keys(known.Memories)) {
			own := Right{Lease: name, Role: known.Name}
			switch c := live[name]; {
			case due.Leases[name]:
				r.Leases = append(r.Leases, name)
			case due.Rights[own] && c != nil && c.Accounts[known.Key] != "":
				claimed = append(claimed, own)
			case due.Rights[own] && f.forgettable(known, name, longest):
				r.Rights = append(r.Rights, name)
			}
		}
		removals = append(removals, r)
	}
	return removals, claimed
}
