// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"errors"
	"fmt"
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

	mu sync.Mutex
	// sightings are, by namespace, of what nobody asks for.
	sightings map[string]map[right]sighting
	// notGated and tooMany are whose owners were told.
	notGated, tooMany told
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

	l, err := r.look(ctx, name, optedIn, never)
	if err != nil {
		return 0, err
	}
	return r.enroll(ctx, l)
}

// look is what the caches know of a namespace.
type look struct {
	namespace string
	optedIn   bool
	wanted    claims
	workloads []workload
	// leases are ours, by name.
	leases   map[string]*coordinationv1.Lease
	ledgers  *ledgers
	bindings []rbacv1.RoleBinding
	// left are the slots for which an account has no room.
	left []string
	// foreign says that a Lease of a slot is somebody else's.
	foreign bool
}

// foreignLook is the time after which enroll looks again at a Lease that somebody
// else made. The caches have no such Lease, so its deletion is no event. Pods that
// wait for a Lease that is gone wait for its duration, of 30 s by default, anyway.
const foreignLook = api.DefaultLeaseDuration

func (r *Reconciler) look(ctx context.Context, namespace string, optedIn, never bool) (*look, error) {
	l := &look{namespace: namespace, optedIn: optedIn, wanted: claims{}}
	if !never {
		if err := r.cachedPods(ctx, namespace, optedIn, l.wanted); err != nil {
			return nil, err
		}
	}
	var err error
	if optedIn {
		if l.workloads, err = r.workloads(ctx, namespace); err != nil {
			return nil, err
		}
		l.wanted.addWorkloads(l.workloads)
	}
	if l.leases, err = r.leases(ctx, namespace); err != nil {
		return nil, err
	}
	if l.ledgers, err = r.ledgers(ctx, r.Client, namespace); err != nil {
		return nil, err
	}
	if l.bindings, err = r.bindings(ctx, namespace); err != nil {
		return nil, err
	}
	l.ledgers.markBound(l.bindings)
	return l, nil
}

// enroll does its steps even if one of them fails: a Role that is in the way
// of one workload is none of the others' business.
func (r *Reconciler) enroll(ctx context.Context, l *look) (time.Duration, error) {
	var errs []error
	if missing := l.missing(); len(missing) > 0 {
		errs = append(errs, r.admit(ctx, l, missing))
	}
	errs = append(errs, r.pullSecrets(ctx, l.namespace, l.optedIn), r.unbindOrphans(ctx, l))
	again, err := r.sweep(ctx, l)
	errs = append(errs, err, r.tellNotGated(ctx, l))
	r.tellTooMany(l)
	if l.foreign && (again == 0 || again > foreignLook) {
		again = foreignLook
	}
	return again, errors.Join(errs...)
}

// missing are the slots for which something is to be done, as far as the caches
// know.
func (l *look) missing() []string {
	var missing []string
	for slot := range l.wanted {
		if lease := l.leases[slot]; lease == nil || !l.inPlace(lease) {
			missing = append(missing, slot)
		}
	}
	slices.Sort(missing)
	return missing
}

// inPlace: each account that claims the Lease has a Role that is bound, names this
// very Lease, and remembers the longest duration of all.
func (l *look) inPlace(lease *coordinationv1.Lease) bool {
	c := l.wanted[lease.Name]
	m := memory{Seconds: max(l.ledgers.longest[lease.Name], seconds(c.duration)), UID: lease.UID}
	for key := range c.accounts {
		at := l.ledgers.of(key, lease.Name)
		if len(at) == 0 || slices.ContainsFunc(at, func(known *ledger) bool {
			return !known.sound || !known.bound || known.memories[lease.Name] != m
		}) {
			return false
		}
	}
	return true
}

// leases are those of a namespace that are ours, as the cache knows them.
func (r *Reconciler) leases(ctx context.Context, namespace string) (map[string]*coordinationv1.Lease, error) {
	var list coordinationv1.LeaseList
	err := r.Client.List(ctx, &list, client.InNamespace(namespace), client.HasLabels{api.ManagedLabel}, client.UnsafeDisableDeepCopy)
	if err != nil {
		return nil, fmt.Errorf("list leases: %w", err)
	}
	leases := make(map[string]*coordinationv1.Lease, len(list.Items))
	for i := range list.Items {
		if lease := &list.Items[i]; ours(lease) {
			leases[lease.Name] = lease
		}
	}
	return leases, nil
}
