// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/utils/ptr"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/enroll/stamp"
)

// stampRounds bounds the rounds of one reconciliation; each round lists the Leases, and writes
// stamps. If no pod holds, a change of the number of shards needs three rounds: to decide, to
// close and to open. In a fourth round nothing is left to write.
const stampRounds = 4

// stamping writes the stamps of the Leases of shards. Package stamp decides which stamps to write.
type stamping struct {
	store
	seen *snapshot
	// left are the slots for which an account's Roles have no room. Enroll makes no new Leases for
	// these slots.
	left []string
	// shut are the closed Leases that have a holder, and the instants since which this
	// process has seen their versions.
	shut *observations
	now  func() time.Time
	// again is the time until a closed Lease expires; zero if this process waits for no closed
	// Lease.
	again time.Duration
	// until bounds the time in which enroll writes stamps.
	until   *stint
	refused refusals
}

// stamp writes the stamps that groups of shards need. If no group in the cache needs a new stamp,
// stamp sends no request.
func (s *stamping) stamp(ctx context.Context) error {
	var groups []string
	cached := map[string][]stamp.Shard{}
	if len(s.seen.shards) > 0 {
		cached = byGroup(s.seen.leases)
	}
	crowded := s.crowded()
	for _, group := range slices.Sorted(maps.Keys(s.seen.shards)) {
		shards, of := cached[group], s.seen.shards[group]
		if !of.inOrder(shards) && (!crowded[group] || of.due(shards)) {
			groups = append(groups, group)
		}
	}
	if len(groups) == 0 {
		s.shut.forget(s.seen.namespace)
		return nil
	}
	for range stampRounds {
		wrote, err := s.round(ctx, groups)
		if err != nil || !wrote || s.until.postponed {
			return err
		}
	}
	return errAgain
}

// crowded returns the groups of which some shards have no room in an account's Roles. The Leases of
// these shards can be missing for ever.
func (s *stamping) crowded() map[string]bool {
	groups := map[string]bool{}
	for _, slot := range s.left {
		if group, _, ok := api.ReadShard(slot); ok {
			groups[group] = true
		}
	}
	return groups
}

// round lists the Leases from the API server, not from the cache, and writes the stamps that these
// Leases need. The result is false if nothing was to be written.
func (s *stamping) round(ctx context.Context, groups []string) (bool, error) {
	leases, err := liveShards(ctx, s.store, s.seen.namespace)
	if err != nil {
		return false, err
	}
	waiting := s.observe(leases)
	s.again = 0
	wrote := false
	var errs []error
	live := byGroup(leases)
	for _, group := range anyFirst(groups) {
		if s.until.over() {
			break
		}
		shards := live[group]
		for i, shard := range shards {
			shards[i].Expired = s.expired(waiting, leases[api.ShardLease(group, shard.Number)])
		}
		orders, err := s.orders(ctx, group, shards)
		errs = append(errs, err)
		for _, order := range orders {
			err := s.write(ctx, leases[api.ShardLease(group, order.Number)], order)
			s.refused.add(err, s.seen.shardedObject(group))
			errs = append(errs, err)
			wrote = true
		}
	}
	return wrote, errors.Join(errs...)
}

// orders returns the writes to the Leases of a group. The result opens no Lease while one of the
// group's Leases is missing, but still named by a Role. The last holder of the missing Lease may be
// alive. A consistent list of the Roles shows which Leases the Roles name.
func (s *stamping) orders(ctx context.Context, group string, shards []stamp.Shard) ([]stamp.Action, error) {
	count, run := s.seen.shards[group].number(decided(shards))
	if orders := stamp.Next(shards, count, run, true); len(orders) > 0 {
		return orders, nil
	}
	orders := stamp.Next(shards, count, run, false)
	if len(orders) == 0 {
		return nil, nil
	}
	roles, err := s.liveRoles(ctx, s.seen.namespace)
	if err != nil {
		return nil, err
	}
	for name := range roles.longest {
		of, n, ok := api.ReadShard(name)
		if ok && of == group && !slices.ContainsFunc(shards, func(known stamp.Shard) bool { return known.Number == n }) {
			return nil, nil // soon this Lease exists again, or no Role names this Lease any more
		}
	}
	return orders, nil
}

// observe remembers the version of each closed Lease that has a holder, and the instant since which
// this process has seen that version.
func (s *stamping) observe(leases map[string]*coordinationv1.Lease) map[right]observation {
	waiting := map[right]*coordinationv1.Lease{}
	for name, lease := range leases {
		if stampOf(lease).Closed && holder(lease) != "" {
			waiting[right{lease: name}] = lease
		}
	}
	return s.shut.observe(s.seen.namespace, waiting, s.now())
}

// expired reports whether this process has seen a closed Lease unchanged for the Lease's whole
// duration. A standby measures a Lease's age in the same way.
func (s *stamping) expired(waiting map[right]observation, lease *coordinationv1.Lease) bool {
	seen, ok := waiting[right{lease: lease.Name}]
	if !ok {
		return false
	}
	// Without a renewal no hold lasts longer than api.MaxLeaseDuration, whatever duration a user
	// has written.
	duration := min(max(s.seen.sweepAfter(lease.Name), time.Duration(ptr.Deref(lease.Spec.LeaseDurationSeconds, 0))*time.Second), api.MaxLeaseDuration)
	left := seen.since.Add(duration).Sub(s.now())
	if left > 0 {
		s.again = sooner(s.again, left)
	}
	return left <= 0
}

// write carries out one write that package stamp has decided. The argument "listed" lacks the fields
// that enroll never reads, so write reads the whole Lease again. If the Lease has changed since enroll
// listed the Leases, write returns an error.
func (s *stamping) write(ctx context.Context, listed *coordinationv1.Lease, order stamp.Action) error {
	lease, err := s.lease(ctx, listed.Namespace, listed.Name)
	if err != nil {
		return fmt.Errorf("stamp: %w", err)
	}
	if lease.UID != listed.UID || lease.ResourceVersion != listed.ResourceVersion {
		return fmt.Errorf("lease %s has changed: %w", listed.Name, errAgain)
	}
	lease.ManagedFields = nil // a write without managedFields leaves them as they are
	if lease.Annotations == nil {
		lease.Annotations = map[string]string{}
	}
	lease.Annotations[api.StampAnnotation] = order.Stamp.String()
	if order.Free {
		lease.Spec.HolderIdentity = new("")
		for _, key := range ofHolder {
			delete(lease.Annotations, key)
		}
	}
	if err := s.client.Update(ctx, lease); err != nil {
		return fmt.Errorf("stamp lease %s: %w", lease.Name, err)
	}
	return nil
}

// ofHolder are the annotations that describe the holder of a Lease.
var ofHolder = []string{
	api.HoldAnnotation, api.TokenAnnotation, api.BootAnnotation, api.AddressAnnotation, api.WorkloadAnnotation, api.JobAnnotation,
	api.RevisionAnnotation, api.ServingAnnotation, api.LeavingAnnotation, api.SuccessorAnnotation, api.YieldAnnotation,
}
