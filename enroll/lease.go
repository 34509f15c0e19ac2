// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

// Unknown is the holder that a new Lease is created with. No pod has this
// identity: a pod's has an underscore in it.
const Unknown = "unknown"

// managed is the value of our label.
const managed = "true"

// admit makes the Leases exist and their claimants able to compete for them. The
// order of its steps is what makes it safe:
//
//  1. The Leases are there, each held by someone unknown. After a crash here,
//     agents may not touch a Lease that no Role names, and wait for one that a
//     Role names.
//  2. A consistent list of the Roles. Had there been a holder before, a Role
//     would name the Lease: its name goes into a Role before anybody can hold
//     it, and out of the last one only after the Lease has been deleted as not
//     held.
//  3. No Role names it: nobody ever held it, and nobody can hold it yet. It is
//     freed, if it is still as it was in step 1 (another process that got
//     further has changed it, or will have its own write refused). A crash
//     here leaves a free Lease that no Role names.
//  4. The Roles name it. From here on only agents write it.
//
// Each step is done for all slots before the next one. So admit lists the Roles
// once, and writes each Role once.
func (r *Reconciler) admit(ctx context.Context, l *look, slots []string) error {
	leases, errs := r.present(ctx, l, slots)
	leases = slices.DeleteFunc(leases, func(lease *coordinationv1.Lease) bool { return l.inPlace(lease) })
	if len(leases) == 0 {
		return errors.Join(errs...)
	}
	ledgers, err := r.ledgers(ctx, r.Reader, l.namespace)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	leases = slices.DeleteFunc(leases, func(lease *coordinationv1.Lease) bool {
		if !ours(lease) || holder(lease) != Unknown || ledgers.named(lease.Name) {
			return false
		}
		lease.Spec.HolderIdentity = new("")
		// Update sends uid and resourceVersion: without the uid it would
		// create the Lease if it is gone, and compare nothing.
		if err := r.Client.Update(ctx, lease); err != nil {
			errs = append(errs, fmt.Errorf("free new lease %s: %w", lease.Name, err))
			return true
		}
		return false
	})
	return errors.Join(append(errs, r.grant(ctx, l, ledgers, leases))...)
}

// present reads the Leases, and creates those that are gone or never were. The look
// notes whether one of them is somebody else's.
func (r *Reconciler) present(ctx context.Context, l *look, slots []string) ([]*coordinationv1.Lease, []error) {
	var (
		leases []*coordinationv1.Lease
		errs   []error
		// before are the Roles, listed ahead of the first creation.
		before *ledgers
	)
	for _, slot := range slots {
		lease, err := r.find(ctx, l, slot)
		if err == nil && lease == nil && before == nil {
			before, err = r.ledgers(ctx, r.Reader, l.namespace)
		}
		if err == nil && lease == nil {
			lease, err = r.create(ctx, l.namespace, slot, max(l.wanted[slot].duration, before.duration(slot)))
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		l.foreign = l.foreign || !ours(lease)
		leases = append(leases, lease)
	}
	return leases, errs
}

// find reads a Lease that may be there. It returns nil for a Lease that is gone,
// and for one that neither the cache nor a Role knows, at no cost.
func (r *Reconciler) find(ctx context.Context, l *look, slot string) (*coordinationv1.Lease, error) {
	if l.leases[slot] == nil && !l.ledgers.named(slot) {
		return nil, nil
	}
	lease, err := r.read(ctx, l.namespace, slot)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return lease, err
}

func (r *Reconciler) read(ctx context.Context, namespace, slot string) (*coordinationv1.Lease, error) {
	lease := new(coordinationv1.Lease)
	if err := r.Reader.Get(ctx, types.NamespacedName{Namespace: namespace, Name: slot}, lease); err != nil {
		return nil, fmt.Errorf("read lease %s: %w", slot, err)
	}
	return lease, nil
}

// create makes a Lease that is held by someone unknown. A Lease that is there
// already, another process's or somebody else's, is read.
func (r *Reconciler) create(ctx context.Context, namespace, slot string, duration time.Duration) (*coordinationv1.Lease, error) {
	now := metav1.NewMicroTime(r.now())
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace,
			Name:      slot,
			Labels:    map[string]string{api.ManagedLabel: managed},
		},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity:       new(Unknown),
			LeaseDurationSeconds: new(seconds(duration)),
			AcquireTime:          &now,
			RenewTime:            &now,
			LeaseTransitions:     new(int32),
		},
	}
	err := r.Client.Create(ctx, lease)
	if apierrors.IsAlreadyExists(err) {
		return r.read(ctx, namespace, slot)
	}
	if err != nil {
		return nil, fmt.Errorf("create lease %s: %w", slot, err)
	}
	return lease, nil
}

func holder(lease *coordinationv1.Lease) string { return ptr.Deref(lease.Spec.HolderIdentity, "") }

func ours(lease *coordinationv1.Lease) bool { return lease.Labels[api.ManagedLabel] == managed }

// unchanged deletes an object only if it is still the one we saw.
func unchanged(object client.Object) client.Preconditions {
	return client.Preconditions{
		UID:             new(object.GetUID()),
		ResourceVersion: new(object.GetResourceVersion()),
	}
}
