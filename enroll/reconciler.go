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
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

var (
	// ErrForeign: an object that somebody else made has a name that we need.
	ErrForeign = errors.New("exists and is not ours")

	// errAgain: done halfway; the next attempt does the rest.
	errAgain = errors.New("to be done again")
)

// Recorder writes Events. The reason is CamelCase, the note a sentence.
type Recorder interface {
	Eventf(regarding, related runtime.Object, kind, reason, action, note string, args ...any)
}

// Reconciler makes a namespace be as its pods and workloads need it.
type Reconciler struct {
	// Client writes; what it reads may be old.
	Client client.Client
	// Reader reads consistently, from no cache.
	Reader client.Reader
	// Now is the clock; time.Now if nil.
	Now func() time.Time
	// Events, if not nil, is told of workloads that claim and are not gated.
	Events Recorder
	// PullSecrets is the service account that may read the pull secrets of
	// namespaces that opted in; none if empty.
	PullSecrets types.NamespacedName
	// Home is the namespace that this runs in. As in kube-system, nothing is
	// done for pods there, which no webhook gates.
	Home string

	mu        sync.Mutex
	sightings map[types.NamespacedName]sighting
	// told: the workloads of a namespace that were looked at, by their name.
	told map[string]map[string]bool
}

func (r *Reconciler) now() time.Time {
	if r.Now == nil {
		return time.Now()
	}
	return r.Now()
}

// Namespace does all that is to be done in a namespace now. If it returns a
// duration, it is to be called again after that at the latest.
func (r *Reconciler) Namespace(ctx context.Context, name string) (time.Duration, error) {
	var namespace corev1.Namespace
	err := r.Client.Get(ctx, types.NamespacedName{Name: name}, &namespace)
	if apierrors.IsNotFound(err) || err == nil && namespace.DeletionTimestamp != nil {
		// Everything in it goes with it.
		r.forget(name)
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read namespace: %w", err)
	}
	never := name == metav1.NamespaceSystem || name == r.Home
	optedIn := !never && namespace.Labels[api.InjectionLabel] == api.InjectionEnabled

	wanted := claims{}
	if !never {
		pods, err := gatedPods(ctx, r.Client, name)
		if err != nil {
			return 0, err
		}
		wanted.addPods(pods, optedIn)
	}
	var workloads []workload
	if optedIn {
		if workloads, err = r.workloads(ctx, name); err != nil {
			return 0, err
		}
		wanted.addWorkloads(workloads)
	}
	return r.enroll(ctx, name, wanted, workloads, optedIn)
}

// enroll does its steps even if one of them fails: a Role that is in the way
// of one workload is none of the others' business.
func (r *Reconciler) enroll(ctx context.Context, namespace string, wanted claims, workloads []workload, optedIn bool) (time.Duration, error) {
	leases, err := r.leases(ctx, r.Client, namespace)
	if err != nil {
		return 0, err
	}
	roles, err := r.roles(ctx, r.Client, namespace)
	if err != nil {
		return 0, err
	}
	bound, err := r.bound(ctx, namespace)
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, slot := range wanted.slots() {
		if !inPlace(leases[slot], roles, bound, wanted[slot]) {
			errs = append(errs, r.admit(ctx, namespace, slot, wanted[slot]))
		}
	}
	errs = append(errs, r.pullSecrets(ctx, namespace, optedIn))
	again, err := r.sweep(ctx, namespace, wanted, leases, roles)
	errs = append(errs, err)
	if optedIn {
		errs = append(errs, r.tell(ctx, workloads))
	} else {
		r.untellAll(namespace)
	}
	return again, errors.Join(errs...)
}

// inPlace: as far as the caches know, nothing is to be done for the slot.
func inPlace(lease *coordinationv1.Lease, roles roles, bound map[string]bool, c *claim) bool {
	if lease == nil {
		return false
	}
	return !slices.ContainsFunc(slices.Collect(maps.Keys(c.accounts)), func(account string) bool {
		return !roles.grants(account, lease, c.duration) || !bound[account]
	})
}

// leases are those of a namespace that are ours, by name.
func (r *Reconciler) leases(ctx context.Context, from client.Reader, namespace string) (map[string]*coordinationv1.Lease, error) {
	var list coordinationv1.LeaseList
	if err := from.List(ctx, &list, client.InNamespace(namespace), client.HasLabels{api.ManagedLabel}); err != nil {
		return nil, fmt.Errorf("list leases: %w", err)
	}
	leases := make(map[string]*coordinationv1.Lease, len(list.Items))
	for i := range list.Items {
		leases[list.Items[i].Name] = &list.Items[i]
	}
	return leases, nil
}

// bound are the service accounts whose Role is bound as we would bind it.
func (r *Reconciler) bound(ctx context.Context, namespace string) (map[string]bool, error) {
	var list rbacv1.RoleBindingList
	if err := r.Client.List(ctx, &list, client.InNamespace(namespace), client.HasLabels{api.ManagedLabel}); err != nil {
		return nil, fmt.Errorf("list role bindings: %w", err)
	}
	bound := map[string]bool{}
	for _, b := range list.Items {
		if len(b.Subjects) == 1 && b.RoleRef.Name == b.Name && b.RoleRef.Name == RoleName(b.Subjects[0].Name) {
			bound[b.Subjects[0].Name] = true
		}
	}
	return bound, nil
}
