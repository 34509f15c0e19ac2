// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"fmt"
	"maps"
	"slices"

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

// admit makes the Lease exist and its claimants able to compete for it. The
// order of its steps is what makes it safe:
//
//  1. The Lease is there, held by someone unknown. A crash here leaves a Lease
//     that nobody may touch, since no Role names it, or that everybody waits
//     for, since one does.
//  2. A consistent list of the Roles. Had there been a holder before, a Role
//     would name the Lease: its name goes into a Role before anybody can hold
//     it, and out only after the Lease has been deleted as not held.
//  3. No Role names it: nobody ever held it, and nobody can hold it yet. It is
//     freed, if it is still as it was in step 1 (another process that got
//     further has changed it, or will have its own write refused). A crash
//     here leaves a free Lease that no Role names.
//  4. The Roles name it. From here on only agents write it.
func (r *Reconciler) admit(ctx context.Context, namespace, name string, c *claim) error {
	lease, err := r.present(ctx, namespace, name, c)
	if err != nil {
		return err
	}
	roles, err := r.roles(ctx, r.Reader, namespace)
	if err != nil {
		return err
	}
	if ours(lease) && holder(lease) == Unknown && !roles.named(name) {
		lease.Spec.HolderIdentity = new("")
		// Update sends uid and resourceVersion: without the uid it would
		// create the Lease if it is gone, and compare nothing.
		if err := r.Client.Update(ctx, lease); err != nil {
			return fmt.Errorf("free new lease %s: %w", name, err)
		}
	}
	for _, account := range slices.Sorted(maps.Keys(c.accounts)) {
		if err := r.grant(ctx, account, lease, c.duration); err != nil {
			return err
		}
	}
	return nil
}

// present reads the Lease, and creates it if it is gone or never was.
func (r *Reconciler) present(ctx context.Context, namespace, name string, c *claim) (*coordinationv1.Lease, error) {
	lease := new(coordinationv1.Lease)
	err := r.Reader.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, lease)
	if err == nil {
		return lease, nil
	}
	if !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("read lease %s: %w", name, err)
	}
	roles, err := r.roles(ctx, r.Reader, namespace)
	if err != nil {
		return nil, err
	}
	now := metav1.NewMicroTime(r.now())
	lease = &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace,
			Name:      name,
			Labels:    map[string]string{api.ManagedLabel: managed},
		},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity:       new(Unknown),
			LeaseDurationSeconds: new(seconds(max(c.duration, roles.longest(name)))),
			AcquireTime:          &now,
			RenewTime:            &now,
			LeaseTransitions:     new(int32),
		},
	}
	if err := r.Client.Create(ctx, lease); err != nil {
		return nil, fmt.Errorf("create lease %s: %w", name, err)
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
