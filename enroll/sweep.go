// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
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

// removal removes the expired Leases and rights of one namespace.
type removal struct {
	store
	seen    *snapshot
	expired expired
	// The field "live" has the claims of pods, and the field "roles" has the Roles. Both come from
	// consistent lists.
	live  claims
	roles *agentRoles
	// The map "gone" has the Leases that are deleted or were absent. The map "kept" has the Leases
	// whose deletion failed.
	gone, kept map[string]bool
	done       []right
	errs       []error
	// now is the clock. From the instant "until", the removal postpones all deletions.
	now       func() time.Time
	until     time.Time
	postponed bool
}

// remove deletes Leases, and then removes their names from the Roles. A crash between these two steps
// leaves the name of a deleted Lease in a Role. If a new pod claims that Lease, enroll creates the
// Lease again with the holder [Unknown], so the pod waits for a lease duration. Otherwise a later
// sweep removes the name.
//
// After [patience], remove postpones the other deletions. The result "done" has the rights that no
// later sweep has to handle.
func (s store) remove(ctx context.Context, seen *snapshot, e expired, now func() time.Time) (done []right, postponed bool, err error) {
	// A pod that the cache does not know yet may claim an expired Lease. Deleting
	// that Lease would be safe, but would make the pod wait. So the method "remove" reads
	// the pods from the API server, and keeps the Leases that these pods claim.
	live, err := s.livePods(ctx, seen.namespace)
	if err != nil {
		return nil, false, err
	}
	// The Roles are read before any Lease is deleted. If another process creates a
	// Lease again meanwhile, that process writes the new UID into the Role, and the write of
	// this removal fails.
	roles, err := s.liveRoles(ctx, seen.namespace)
	if err != nil {
		return nil, false, err
	}
	r := &removal{store: s, seen: seen, expired: e, live: live, roles: roles, gone: map[string]bool{}, kept: map[string]bool{}, now: now, until: now().Add(patience)}
	r.keepClaimed()
	longest := seen.claimantsLongest(roles)
	for _, known := range roles.all {
		r.reduceRole(ctx, known, longest)
	}
	// The function reduceRole has handled the expired Leases that a Role names. This loop deletes
	// the Leases that no Role names.
	for _, name := range slices.Sorted(maps.Keys(r.expired.leases)) {
		if r.deleteLease(ctx, name) {
			r.done = append(r.done, right{lease: name})
		}
	}
	return r.done, r.postponed, errors.Join(r.errs...)
}

// keepClaimed excludes from the removal each Lease and each right that a living pod claims.
func (r *removal) keepClaimed() {
	for name := range r.expired.leases {
		if r.live[name] != nil {
			delete(r.expired.leases, name)
			r.done = append(r.done, right{lease: name})
		}
	}
	for of := range r.expired.rights {
		if c := r.live[of.lease]; c != nil && c.accounts[keyOf(of.role)] != "" {
			delete(r.expired.rights, of)
			r.done = append(r.done, of)
		}
	}
}

// reduceRole deletes the expired Leases that a Role names. Then reduceRole removes from the
// Role, in one write, the names of these Leases and of the Leases to which the Role's right has
// expired.
func (r *removal) reduceRole(ctx context.Context, known *agentRole, longest map[string]int32) {
	var done []right
	for _, name := range slices.Sorted(maps.Keys(known.memories)) {
		own := right{lease: name, role: known.role.Name}
		switch {
		case r.expired.leases[name] && r.deleteLease(ctx, name):
			done = append(done, right{lease: name})
		case r.expired.rights[own] && r.seen.forgettable(known, name, longest):
			done = append(done, own)
		default:
			continue
		}
		delete(known.memories, name)
	}
	if len(done) == 0 {
		return
	}
	if err := r.rewriteRole(ctx, known); err != nil {
		r.errs = append(r.errs, err)
		return
	}
	r.done = append(r.done, done...)
}

// rewriteRole stores a Role from which Leases were removed. If the Role names no Lease any more,
// rewriteRole deletes the Role. If the process crashes before the update or the deletion, the
// stored Role still remembers the removed Leases. So a later sweep finds the Role.
func (r *removal) rewriteRole(ctx context.Context, known *agentRole) error {
	if len(known.memories) == 0 {
		return r.deleteRole(ctx, known.role)
	}
	err := known.remember()
	if err == nil {
		err = r.client.Update(ctx, known.role)
	}
	if err != nil {
		return fmt.Errorf("revoke leases: %w", err)
	}
	return nil
}

// deleteLease deletes an expired Lease, and reports whether the Lease is gone. A second call
// for the same Lease only repeats the first answer. After the patience, deleteLease does nothing.
func (r *removal) deleteLease(ctx context.Context, name string) bool {
	if r.gone[name] || r.kept[name] {
		return r.gone[name]
	}
	if !r.now().Before(r.until) {
		r.postponed = true
		return false
	}
	var err error
	if lease := r.seen.leases[name]; lease != nil {
		err = r.client.Delete(ctx, lease, unchanged(lease))
	} else {
		err = r.requireAbsent(ctx, r.seen.namespace, name)
	}
	if err != nil {
		r.errs = append(r.errs, fmt.Errorf("sweep lease %s: %w", name, err))
		r.kept[name] = true
		return false
	}
	r.gone[name] = true
	r.deleteNextLease(ctx, name)
	return true
}

// deleteNextLease deletes the next Lease of a slot whose Lease is gone. If the deletion fails,
// a later sweep finds that next Lease without a slot, and deletes it.
func (r *removal) deleteNextLease(ctx context.Context, slot string) {
	next := r.seen.leases[api.NextLease(slot)]
	if next == nil {
		return
	}
	if err := client.IgnoreNotFound(r.client.Delete(ctx, next, unchanged(next))); err != nil {
		r.errs = append(r.errs, fmt.Errorf("sweep next lease of %s: %w", slot, err))
	}
}
