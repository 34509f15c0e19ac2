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

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/enroll/step"
)

// removal deletes the Leases of one namespace that are due.
type removal struct {
	store
	seen *snapshot
	// The map "gone" has the Leases that are deleted or were absent. The map "kept" has the Leases
	// whose deletion failed.
	gone, kept map[string]bool
	done       []step.Right
	errs       []error
	// now is the clock. From the instant "until", the removal postpones all deletions.
	now       func() time.Time
	until     time.Time
	postponed bool
}

// remove deletes Leases, and then removes their names from the Roles. A crash between these two steps
// leaves the name of a deleted Lease in a Role. If a new pod claims that Lease, enroll creates the
// Lease again with the holder [step.Unknown], so the pod waits for a lease duration. Otherwise a later
// sweep removes the name.
//
// After [patience], remove postpones the other deletions. The result "done" has the rights that no
// later sweep has to handle.
func (s store) remove(ctx context.Context, seen *snapshot, due step.Due, now func() time.Time) (done []step.Right, postponed bool, err error) {
	live, err := s.livePods(ctx, seen.namespace)
	if err != nil {
		return nil, false, err
	}
	roles, err := s.liveRoles(ctx, seen.namespace)
	if err != nil {
		return nil, false, err
	}
	removals, claimed := seen.Remove(due, live, &roles.Roles)
	r := &removal{store: s, seen: seen, done: claimed, gone: map[string]bool{}, kept: map[string]bool{}, now: now, until: now().Add(patience)}
	for i, known := range roles.All {
		r.reduceRole(ctx, roles.objects[known.Name], known, removals[i])
	}
	// The function reduceRole has handled the Leases that a Role names.
	for _, name := range slices.Sorted(maps.Keys(due.Leases)) {
		if r.deleteLease(ctx, name) {
			r.done = append(r.done, step.Right{Lease: name})
		}
	}
	return r.done, r.postponed, errors.Join(r.errs...)
}

// reduceRole deletes the Leases of the removal. Then reduceRole removes from the Role, in one write,
// the names of these Leases and of the rights.
func (r *removal) reduceRole(ctx context.Context, role *rbacv1.Role, known *step.Role, of step.Removal) {
	var done []step.Right
	for _, name := range of.Leases {
		if r.deleteLease(ctx, name) {
			done = append(done, step.Right{Lease: name})
			delete(known.Memories, name)
		}
	}
	for _, name := range of.Rights {
		done = append(done, step.Right{Lease: name, Role: known.Name})
		delete(known.Memories, name)
	}
	if len(done) == 0 {
		return
	}
	if err := r.rewriteRole(ctx, role, known.Memories); err != nil {
		r.errs = append(r.errs, err)
		return
	}
	r.done = append(r.done, done...)
}

// rewriteRole stores a Role from which Leases were removed. If the Role names no Lease any more,
// rewriteRole deletes the Role. If the process crashes before the update or the deletion, the
// stored Role still remembers the removed Leases. So a later sweep finds the Role.
func (r *removal) rewriteRole(ctx context.Context, role *rbacv1.Role, memories map[string]step.Memory) error {
	if len(memories) == 0 {
		return r.deleteRole(ctx, role)
	}
	err := remember(role, memories)
	if err == nil {
		err = r.client.Update(ctx, role)
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
	if lease := r.seen.Leases[name]; lease != nil {
		err = r.deleteSeen(ctx, r.seen.namespace, lease)
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
	next := r.seen.Leases[api.NextLease(slot)]
	if next == nil {
		return
	}
	if err := client.IgnoreNotFound(r.deleteSeen(ctx, r.seen.namespace, next)); err != nil {
		r.errs = append(r.errs, fmt.Errorf("sweep next lease of %s: %w", slot, err))
	}
}
