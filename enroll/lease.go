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
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
	"github.com/metaparticle-io/metaparticle/enroll/step"
)

// admission gives each slot a Lease, and the slot's claimants the right to compete for that Lease.
type admission struct {
	store
	seen *snapshot
	// began is the instant at which the reconciliation began, on the clock "now".
	began time.Time
	now   func() time.Time
	// foreign reports that a slot has a Lease that enroll did not make.
	foreign bool
	// left are the slots for which an account's Roles have no room.
	left    []string
	refused refusals
	// postponed is the number of slots that the next reconciliation admits.
	postponed int
}

// admitIncomplete admits each slot for which enroll can do something now. A slot without room costs
// no request, so even many such slots do not delay the slots of other namespaces. The result
// "behind" is the number of claimed slots that still lack their Leases or rights.
func (a *admission) admitIncomplete(ctx context.Context) (behind int, err error) {
	slots, left := a.seen.Incomplete()
	a.left = left
	if len(slots) == 0 {
		return len(left), nil
	}
	if err := a.admit(ctx, slots); err != nil {
		return len(union(a.left, slots)), err
	}
	return len(a.left) + a.postponed, nil
}

// union returns the sorted slots that are in at least one of the two slices.
func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// admit creates the Leases and lets their claimants compete for them. The order
// of the steps makes that safe:
//
//  1. Each Lease exists, and the holder of a new one is [step.Unknown]. A crash here is
//     harmless: no agent may write a Lease that no Role names, and all agents wait if a
//     Role names the Lease.
//  2. A consistent list of the Roles is read. If the slot ever had a holder, a Role
//     names the Lease: a Role names a Lease before any agent can hold it. The last such
//     Role forgets the name only after enroll has deleted the Lease, which no pod held.
//  3. If no Role names the Lease, no agent has held it, and none can hold it yet.
//     Enroll frees the Lease if it is unchanged since step 1. If another process
//     was faster, one of the two writes fails. A crash here leaves a free Lease
//     that no Role names. The Lease that a person made for a lock is never freed, but gets the longest
//     duration of a claim.
//  4. The Roles name the Lease. From here on enroll writes only the stamp of a shard's Lease. With
//     the stamp, enroll also removes the holder of a closed Lease that has expired.
//
// Each step is done for all slots before the next step. So enroll lists the Roles once, and
// writes each Role once.
//
// The next Lease of a slot is created first, so that the cache knows the next Lease before the
// slot's own Lease. A next Lease gives no pod the slot, so no step has to protect a next Lease.
func (a *admission) admit(ctx context.Context, slots []string) error {
	leases, errs := a.ensure(ctx, slots)
	leases = slices.DeleteFunc(leases, func(lease *coordinationv1.Lease) bool {
		return a.seen.Sufficient(lease.Name, string(lease.UID), a.seen.Claims[lease.Name].Accounts)
	})
	if len(leases) == 0 {
		return errors.Join(errs...)
	}
	roles, err := a.liveRoles(ctx, a.seen.namespace)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	leases = slices.DeleteFunc(leases, func(lease *coordinationv1.Lease) bool {
		was := seenLease(lease)
		is := was.Adopted(a.seen.Claims[lease.Name], &roles.Roles)
		if !ours(lease) || is.Holder == was.Holder && is.Duration == was.Duration {
			return false
		}
		lease.Spec.HolderIdentity = new(is.Holder)
		if is.Duration != was.Duration {
			lease.Spec.LeaseDurationSeconds = new(step.Seconds(is.Duration))
		}
		// The update sends uid and resourceVersion. Without the uid, the API server would
		// create a deleted Lease again. That Lease would be free, although an agent may
		// have held the deleted one.
		if err := a.client.Update(ctx, lease); err != nil {
			err = fmt.Errorf("adopt new lease %s: %w", lease.Name, err)
			a.refused.add(err, a.seen.wanted.first[lease.Name])
			errs = append(errs, err)
			return true
		}
		return false
	})
	left, err := a.entitle(ctx, roles, leases)
	a.left = union(a.left, left)
	return errors.Join(append(errs, err)...)
}

// excess returns the slots for which an account has no room, with their first claimants.
func (a *admission) excess() []excess {
	var all []excess
	for _, slot := range a.left {
		all = append(all, excess{first: a.seen.wanted.first[slot], problem: fmt.Sprintf(
			"Slot %s waits: its service account claims more than %d slots in this namespace", slot, step.MaxSlotsPerRole*step.MaxRolesPerAccount)})
	}
	return all
}

// createNextLease creates the next Lease of a slot, if the slot has a next Lease that the cache does
// not contain. A new next Lease has no holder, because no pod speaks yet. An error does not delay the
// slot, because a pod can hold without a next Lease.
func (a *admission) createNextLease(ctx context.Context, slot string) error {
	for _, name := range nextLeases([]string{slot}) {
		if a.seen.Leases[name] != nil {
			continue
		}
		next := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
			Namespace: a.seen.namespace, Name: name, Labels: map[string]string{api.ManagedLabel: managed},
		}}
		if a.seen.Claims[slot].Alone(false) {
			next.Annotations = map[string]string{api.AloneAnnotation: api.AloneTrue}
		}
		err := a.client.Create(ctx, next)
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("create next lease %s: %w", name, err)
		}
	}
	return nil
}

// hint writes the hints of next Leases that package step has decided, or removes them. A pod may have
// written its word meanwhile, so each write replaces the newest version of the next Lease.
func (s store) hint(ctx context.Context, seen *snapshot, until *stint) error {
	var errs []error
	hints := seen.Hints()
	for _, slot := range anyFirst(slices.Sorted(maps.Keys(hints))) {
		if until.over() {
			break
		}
		if err := s.writeHint(ctx, seen.namespace, api.NextLease(slot), hints[slot]); err != nil {
			errs = append(errs, fmt.Errorf("hint on %s: %w", api.NextLease(slot), err))
		}
	}
	return errors.Join(errs...)
}

// writeHint sends no write if the next Lease already is as it shall be: the cache may be behind.
func (s store) writeHint(ctx context.Context, namespace, next string, alone bool) error {
	lease, err := s.lease(ctx, namespace, next)
	if err != nil || !ours(lease) || alone == (lease.Annotations[api.AloneAnnotation] == api.AloneTrue) {
		return client.IgnoreNotFound(err)
	}
	lease.ManagedFields = nil // a write without managedFields leaves them as they are
	if lease.Annotations == nil {
		lease.Annotations = map[string]string{}
	}
	if lease.Annotations[api.AloneAnnotation] = api.AloneTrue; !alone {
		delete(lease.Annotations, api.AloneAnnotation)
	}
	return s.client.Update(ctx, lease)
}

// ensure reads the Leases, and creates those that do not exist. After [patience], ensure postpones
// the remaining slots. The first slot is random, so slots that fail never keep others waiting.
func (a *admission) ensure(ctx context.Context, slots []string) ([]*coordinationv1.Lease, []error) {
	var (
		leases []*coordinationv1.Lease
		errs   []error
		// The variable "before" has the Roles as they were before the function created the first
		// Lease.
		before *agentRoles
	)
	for i, slot := range anyFirst(slots) {
		if i > 0 && a.now().Sub(a.began) >= patience {
			a.postponed = len(slots) - i
			break
		}
		nextErr := a.createNextLease(ctx, slot)
		if nextErr != nil {
			errs = append(errs, nextErr)
		}
		lease, err := a.find(ctx, slot)
		if err == nil && lease == nil && before == nil {
			before, err = a.liveRoles(ctx, a.seen.namespace)
		}
		if err == nil && lease == nil {
			made := newLease(a.seen.namespace, step.NewLease(slot, a.seen.Claims[slot], &before.Roles), a.began)
			made.OwnerReferences = ownersOf(slot, a.seen.wanted.first[slot]) // only the Lease of a barrier has an owner
			lease, err = a.createLease(ctx, made)
		}
		a.refused.add(err, a.seen.wanted.first[slot])
		a.refused.add(nextErr, a.seen.wanted.first[slot]) // the slot's own Lease says more
		if err != nil {
			errs = append(errs, err)
			continue
		}
		a.foreign = a.foreign || !ours(lease)
		leases = append(leases, lease)
	}
	return leases, errs
}

// find reads a Lease, and returns nil if the Lease does not exist. If the Lease is not in the cache
// and no Role names the Lease, the function returns nil without a request.
func (a *admission) find(ctx context.Context, slot string) (*coordinationv1.Lease, error) {
	if a.seen.Leases[slot] == nil && !a.seen.Roles.Named(slot) {
		return nil, nil
	}
	lease, err := a.lease(ctx, a.seen.namespace, slot)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return lease, err
}

// ownersOf returns the owners of the Lease of a slot. If the slot is at a barrier of the claimant's
// own Job, the Job owns the Lease. So after the deletion of the Job the garbage collector deletes
// the Lease, with the record that the barrier is open. Any other Lease has no owner, because the
// Lease must outlive the workload.
func ownersOf(slot string, claimant client.Object) []metav1.OwnerReference {
	run := podspec.Run(claimant)
	if run == "" || api.RunOf(slot) != run {
		return nil
	}
	owner := metav1.GetControllerOf(claimant)
	return []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: owner.Kind, Name: owner.Name, UID: owner.UID}}
}
