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
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

// sighting is a Lease that nobody asks for, as it was when this process first
// saw it like that.
type sighting struct {
	// uid and version are empty for a Lease that is gone while a Role still
	// names it: its holder may be alive all the same.
	uid     types.UID
	version string
	since   time.Time
}

// sweep deletes what nobody asks for and a whole duration has not changed:
// whoever held it must have stopped by then. It returns when to look again.
func (r *Reconciler) sweep(ctx context.Context, namespace string, wanted claims, leases map[string]*coordinationv1.Lease, roles roles) (time.Duration, error) {
	names := roles.names()
	for name, lease := range leases {
		if ours(lease) {
			names[name] = true
		}
	}
	var (
		again time.Duration
		errs  []error
	)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		key := types.NamespacedName{Namespace: namespace, Name: name}
		if wanted[name] != nil {
			r.unsee(key)
			continue
		}
		lease := leases[name]
		d := roles.longest(name)
		if lease != nil {
			d = max(d, time.Duration(ptr.Deref(lease.Spec.LeaseDurationSeconds, 0))*time.Second)
		}
		if d == 0 {
			d = api.DefaultLeaseDuration
		}
		if left := d - r.see(key, lease); left > 0 {
			if again == 0 || left < again {
				again = left
			}
			continue
		}
		if err := r.remove(ctx, key, lease); err != nil {
			errs = append(errs, err)
			continue
		}
		r.unsee(key)
	}
	return again, errors.Join(errs...)
}

// see notes the Lease (nil: it is gone) as it is, and returns for how long it
// has been like that.
func (r *Reconciler) see(key types.NamespacedName, lease *coordinationv1.Lease) time.Duration {
	now := r.now()
	seen := sighting{since: now}
	if lease != nil {
		seen.uid, seen.version = lease.UID, lease.ResourceVersion
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	before, ok := r.sightings[key]
	if ok && before.uid == seen.uid && before.version == seen.version {
		return now.Sub(before.since)
	}
	if r.sightings == nil {
		r.sightings = map[types.NamespacedName]sighting{}
	}
	r.sightings[key] = seen
	return 0
}

func (r *Reconciler) unsee(key types.NamespacedName) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.sightings, key)
}

// forget drops all that is remembered of a namespace that is gone.
func (r *Reconciler) forget(namespace string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.told, namespace)
	maps.DeleteFunc(r.sightings, func(key types.NamespacedName, _ sighting) bool { return key.Namespace == namespace })
}

// remove deletes the Lease, then its name from the Roles. A crash between the
// two leaves a name without a Lease, which makes newcomers wait a duration, and
// which a later sweep removes after one.
func (r *Reconciler) remove(ctx context.Context, key types.NamespacedName, lease *coordinationv1.Lease) error {
	// Nothing would be lost by sweeping what a pod asks for that our cache does
	// not know yet, but that pod would wait.
	pods, err := gatedPods(ctx, r.Reader, key.Namespace)
	if err != nil {
		return err
	}
	wanted := claims{}
	wanted.addPods(pods, true)
	if wanted[key.Name] != nil {
		return nil
	}
	roles, err := r.roles(ctx, r.Reader, key.Namespace)
	if err != nil {
		return err
	}
	if lease != nil {
		err = r.Client.Delete(ctx, lease, unchanged(lease))
	} else {
		err = r.absent(ctx, key)
	}
	if err != nil {
		return fmt.Errorf("sweep lease %s: %w", key.Name, err)
	}
	for i := range roles {
		if _, ok := remembered(&roles[i])[key.Name]; !ok {
			continue
		}
		// The Roles were read before the Lease was deleted: who has made a new
		// one since and said so in the Role makes this write fail.
		if err := r.revoke(ctx, &roles[i], key.Name); err != nil {
			return err
		}
	}
	return nil
}

// absent: a Lease that the cache does not know is not there either, or is
// somebody else's, and stays.
func (r *Reconciler) absent(ctx context.Context, key types.NamespacedName) error {
	var lease coordinationv1.Lease
	err := r.Reader.Get(ctx, key, &lease)
	if err == nil && ours(&lease) {
		return errAgain
	}
	return client.IgnoreNotFound(err)
}

// revoke takes a name out of a Role, and deletes the Role with its last one.
func (r *Reconciler) revoke(ctx context.Context, role *rbacv1.Role, lease string) error {
	memories := remembered(role)
	delete(memories, lease)
	if len(memories) > 0 {
		err := remember(role, memories)
		if err == nil {
			err = r.Client.Update(ctx, role)
		}
		if err != nil {
			return fmt.Errorf("revoke lease %s: %w", lease, err)
		}
		return nil
	}
	if err := r.Client.Delete(ctx, role, unchanged(role)); err != nil {
		return fmt.Errorf("delete role %s: %w", role.Name, err)
	}
	// A binding without its Role gives nothing. If a new Role has come since,
	// its next look makes the binding anew.
	return r.unbind(ctx, role.Namespace, role.Name)
}

// unbind deletes a binding of ours, if it is there.
func (r *Reconciler) unbind(ctx context.Context, namespace, name string) error {
	binding := rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	err := r.Client.Get(ctx, client.ObjectKeyFromObject(&binding), &binding)
	if err == nil && binding.Labels[api.ManagedLabel] == managed {
		err = r.Client.Delete(ctx, &binding, unchanged(&binding))
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete role binding %s: %w", name, err)
	}
	return nil
}
