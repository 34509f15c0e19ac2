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

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/enroll/step"
)

// stampRounds bounds the rounds of one reconciliation; each round lists the Leases, and writes
// stamps. If no pod holds, a change of the number of shards needs three rounds: to decide, to
// close and to open. In a fourth round nothing is left to write.
const stampRounds = 4

// stamping writes the stamps of the Leases of shards. Package step decides which stamps to write.
type stamping struct {
	store
	seen *snapshot
	// left are the slots for which an account's Roles have no room. Enroll makes no new Leases for
	// these slots.
	left []string
	shut *byNamespace[step.Right, step.Sighting]
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
	cached := map[string][]step.Shard{}
	if len(s.seen.shards) > 0 {
		cached = step.Groups(s.seen.Leases)
	}
	crowded := s.crowded()
	for _, group := range slices.Sorted(maps.Keys(s.seen.shards)) {
		shards, of := cached[group], s.seen.shards[group]
		if !of.InOrder(shards) && (!crowded[group] || of.Due(shards)) {
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
	shut := step.Observe(s.shut.in(s.seen.namespace), step.Shut(leases), s.now())
	s.shut.set(s.seen.namespace, shut)
	s.again = 0
	wrote := false
	var errs []error
	live := step.Groups(leases)
	for _, group := range anyFirst(groups) {
		if s.until.over() {
			break
		}
		shards := live[group]
		for i, shard := range shards {
			expired, left := s.seen.Expired(shut, leases[api.ShardLease(group, shard.Number)], s.now())
			shards[i].Expired, s.again = expired, step.Sooner(s.again, left)
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
func (s *stamping) orders(ctx context.Context, group string, shards []step.Shard) ([]step.Action, error) {
	count, run := s.seen.shards[group].Number(step.Decided(shards))
	if orders := step.Next(shards, count, run, true); len(orders) > 0 {
		return orders, nil
	}
	orders := step.Next(shards, count, run, false)
	if len(orders) == 0 {
		return nil, nil
	}
	roles, err := s.liveRoles(ctx, s.seen.namespace)
	if err != nil || roles.Absent(group, shards) {
		return nil, err // soon the absent Lease exists again, or no Role names it any more
	}
	return orders, nil
}

// write carries out one write that package step has decided. The argument "listed" lacks the fields
// that enroll never reads, so write reads the whole Lease again. If the Lease has changed since enroll
// listed the Leases, write returns an error.
func (s *stamping) write(ctx context.Context, listed *step.Lease, order step.Action) error {
	lease, err := s.lease(ctx, s.seen.namespace, listed.Name)
	if err != nil {
		return fmt.Errorf("stamp: %w", err)
	}
	if string(lease.UID) != listed.UID || lease.ResourceVersion != listed.Version {
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
