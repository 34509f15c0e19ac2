// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/types"
)

// observation is the state of a right, and the instant since which this process has seen that
// state.
type observation struct {
	// uid and version are those of the Lease, if the right stands for a whole Lease. Both are
	// empty for the right of one Role, and for a deleted Lease that a Role still names. The
	// last holder of a deleted Lease may be alive. So the Role must name that Lease for a whole
	// lease duration.
	uid     types.UID
	version string
	since   time.Time
}

// observations has the observed rights of each namespace. The [Reconciler] observes unclaimed
// rights in a value of this type, and closed Leases that have a holder in another value.
type observations struct {
	mu  sync.Mutex
	all map[string]map[right]observation
}

// observe stores new observations in place of a namespace's earlier ones, and returns the new
// observations. If the Lease of an unclaimed right has not changed, the right keeps the instant of
// its earlier observation.
func (o *observations) observe(namespace string, unclaimed map[right]*coordinationv1.Lease, now time.Time) map[right]observation {
	o.mu.Lock()
	defer o.mu.Unlock()
	before := o.all[namespace]
	seen := make(map[right]observation, len(unclaimed))
	for of, lease := range unclaimed {
		s := observation{since: now}
		if lease != nil {
			s.uid, s.version = lease.UID, lease.ResourceVersion
		}
		if b, ok := before[of]; ok && b.uid == s.uid && b.version == s.version {
			s = b
		}
		seen[of] = s
	}
	if o.all == nil {
		o.all = map[string]map[right]observation{}
	}
	if len(seen) > 0 {
		o.all[namespace] = seen
	} else {
		delete(o.all, namespace)
	}
	return seen
}

// drop forgets rights that were swept, or are claimed again.
func (o *observations) drop(namespace string, done []right) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, of := range done {
		delete(o.all[namespace], of)
	}
}

// forget drops all observations of a namespace.
func (o *observations) forget(namespace string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.all, namespace)
}

// expired has the Leases and rights that have been unclaimed for a whole lease duration.
type expired struct {
	// leases are to be deleted, with all rights on them.
	leases map[string]bool
	// rights are to be withdrawn, because the Role's account does not claim the Lease. The Lease
	// itself stays, because other accounts claim the Lease, or because [recorded] returns true for
	// the Lease.
	rights map[right]bool
}

// expire returns the observed rights that have not changed for a whole lease duration, and the time
// until the next right expires.
//
// A holder that does not renew for a whole lease duration has stopped the application, so its Lease
// may be deleted. If other accounts claim the Lease, an account without a claim loses only its
// right, after the same time. That account has had no pod meanwhile, so none of its agents has
// renewed.
func expire(s *snapshot, seen map[right]observation, now time.Time) (expired, time.Duration) {
	e := expired{leases: map[string]bool{}, rights: map[right]bool{}}
	var again time.Duration
	for of, o := range seen {
		left := s.sweepAfter(of.lease) - now.Sub(o.since)
		switch {
		case left > 0:
			again = sooner(again, left)
		case of.role == "":
			e.leases[of.lease] = true
		default:
			e.rights[of] = true
		}
	}
	s.keepLastRecords(e.rights)
	return e, again
}

// keepLastRecords excludes the rights that the Roles in the cache show to be the last records of
// their Leases. So such a right costs no request. Once another Role has the record, the new version
// of that Role causes the next sweep.
func (s *snapshot) keepLastRecords(rights map[right]bool) {
	if len(rights) == 0 {
		return
	}
	longest := s.claimantsLongest(s.roles)
	for _, known := range s.roles.all {
		for name := range known.memories {
			if !s.forgettable(known, name, longest) {
				delete(rights, right{lease: name, role: known.role.Name})
			}
		}
	}
}

// claimantsLongest returns, for each Lease, the longest duration in the Roles of its claimants. The
// Role of another account may forget a claimed Lease only if the duration in that Role is not
// longer than this longest duration. So the longest duration of a claimed Lease stays in some Role.
// Any Role may forget an unclaimed Lease for which [recorded] returns true.
func (s *snapshot) claimantsLongest(roles *agentRoles) map[string]int32 {
	longest := map[string]int32{}
	for _, known := range roles.all {
		for name, m := range known.memories {
			if c := s.wanted[name]; c != nil && c.accounts[known.key] != "" {
				longest[name] = max(longest[name], m.Seconds)
			}
		}
	}
	return longest
}

// forgettable reports whether a Role may forget an expired right. The argument "longest" is the
// result of [snapshot.claimantsLongest].
func (s *snapshot) forgettable(known *agentRole, name string, longest map[string]int32) bool {
	seconds, claimed := longest[name]
	return claimed && seconds >= known.memories[name].Seconds || s.wanted[name] == nil && recorded(s.leases[name])
}

func (e expired) empty() bool { return len(e.leases)+len(e.rights) == 0 }

// sooner returns the shorter of two times. Zero stands for a time that never ends.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}
