// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/enroll/step"
	"github.com/metaparticle-io/metaparticle/listing"
)

// Reconciler gives the pods and workloads of a namespace their Leases and Roles.
type Reconciler struct {
	// Client writes objects, and reads them from the cache, which may be stale.
	Client client.Client
	// Reader reads from the API server, not from a cache.
	Reader client.Reader
	// Now is the clock; time.Now if nil.
	Now func() time.Time
	// Events, if not nil, receives the Events [NotGated], [TooManySlots], [ShardsLackPods],
	// [EnrollRefused], [ServiceNotForwarded] and [OwnSlot].
	Events Recorder
	// Shortage, if not nil, receives how many shards of a namespace have no pod that runs.
	Shortage func(namespace string, shards int)
	// Behind, if not nil, receives how many claimed slots of a namespace still lack their Leases
	// or rights at the end of a reconciliation.
	Behind func(namespace string, slots int)
	// Failed, if not nil, receives for each step of a reconciliation whether the step has failed: 1
	// or 0. A lost race is no failure.
	Failed func(namespace, step string, failed int)
	// Paused, if not nil, receives for each value of [api.Pause] how many slots of a namespace have
	// this pause.
	Paused func(namespace, pause string, slots int)
	// PullSecrets is the service account that may read the pull secrets of
	// namespaces that opted in. If empty, enroll gives nobody that right.
	PullSecrets types.NamespacedName
	// Home is the namespace of the webhook itself. No webhook gates pods there or in kube-system,
	// so enroll does nothing in these two namespaces.
	Home string

	// pager is the one of the process if a manager runs the Reconciler. A caller without a manager
	// needs no bound. In a test with simulated time, the channel of another bubble would stop the clock.
	pager *listing.Pager
	// unclaimed has the sightings of unclaimed rights, and shut those of [step.Shut].
	unclaimed, shut byNamespace[step.Right, step.Sighting]

	shortages spells
	refused   spells
	suspects  spells
	notifier  notifier
}

// minRetry is the delay of the next attempt if a write of another process came before the write of
// enroll. The other process ends its work in about this time. After any other failure, minRetry is
// the first of the growing delays. The same delay precedes the rest of a long reconciliation.
const minRetry = 10 * time.Millisecond

// foreignRecheck is the time after which enroll again reads a Lease that enroll did not make. The
// caches have no such Lease, so no event reports its deletion. A shorter time would gain little,
// because by default pods wait for 30 s after the deletion of a Lease.
const foreignRecheck = api.DefaultLeaseDuration

// Namespace does everything that a namespace needs now. If the returned duration is not zero, the
// caller must call Namespace once more after that time at the latest.
func (r *Reconciler) Namespace(ctx context.Context, name string) (time.Duration, error) {
	var namespace corev1.Namespace
	err := r.Client.Get(ctx, types.NamespacedName{Name: name}, &namespace)
	if apierrors.IsNotFound(err) || err == nil && namespace.DeletionTimestamp != nil {
		// The API server deletes all objects of the namespace together with the namespace.
		r.forget(name)
		return 0, nil
	}
	if err != nil {
		return 0, r.unread(name, fmt.Errorf("read namespace: %w", err))
	}
	covers := coversGated
	switch {
	case name == metav1.NamespaceSystem || name == r.Home:
		covers = coversNone
	case namespace.Labels[api.InjectionLabel] == api.InjectionEnabled:
		covers = coversAll
	}

	s := store{client: r.Client, reader: r.Reader, pager: r.pager}
	seen, err := s.snapshot(ctx, name, covers)
	if err != nil {
		return 0, r.unread(name, err)
	}
	return r.enroll(ctx, s, seen)
}

// unread reports that a namespace could not be read, and returns the error.
func (r *Reconciler) unread(namespace string, err error) error {
	if r.Failed != nil && !raced(err) {
		r.Failed(namespace, stepRead, 1)
	}
	return err
}

// enroll takes all its steps even if one of them fails: a foreign Role that blocks
// one workload must not block the others.
func (r *Reconciler) enroll(ctx context.Context, s store, seen *snapshot) (time.Duration, error) {
	var o outcome
	a := &admission{store: s, seen: seen, began: r.now(), now: r.now}
	behind, err := a.admitIncomplete(ctx)
	o.add(stepSlots, err)
	r.reportBehind(seen.namespace, behind)
	hinting := newStint(r.now)
	o.add(stepHints, s.hint(ctx, seen, hinting))
	conditions, variables := newConditionRoles(s, seen, r.now), newVariableRoles(s, seen, r.now)
	o.add(stepConditions, conditions.entitle(ctx))
	o.add(stepVariables, variables.entitle(ctx))
	o.add(stepPullSecrets, s.pullSecrets(ctx, r.PullSecrets, seen))
	unbinding := newStint(r.now)
	o.add(stepBindings, s.unbindOrphans(ctx, seen.roles, seen.bindings, unbinding))
	again, err := r.sweep(ctx, s, seen)
	o.add(stepSweep, err)
	o.add(stepEvents, r.notifier.notifyNotGated(ctx, r.Events, s, seen))
	if seen.optedIn {
		o.add(stepEvents, r.notifier.notifyUnforwarded(ctx, r.Events, s, seen.namespace, newStint(r.now)))
		o.add(stepEvents, r.notifier.notifyApart(ctx, r.Events, s, seen))
	}
	r.notifier.notifyTooMany(r.Events, seen.namespace, slices.Concat(a.excess(), conditions.left, variables.left))
	stamps := &stamping{store: s, seen: seen, left: a.left, shut: &r.shut, now: r.now, until: newStint(r.now)}
	o.add(stepStamps, stamps.stamp(ctx))
	again = step.Sooner(again, stamps.again)
	lacking, next := r.shortages.notifyShortages(r.Events, seen, r.now())
	r.reportShortage(seen.namespace, lacking)
	again = step.Sooner(again, next)
	refused := slices.Concat(a.refused, conditions.refused, variables.refused, stamps.refused)
	again = step.Sooner(again, r.refused.notifyRefused(r.Events, seen.namespace, refused, r.now()))
	again = step.Sooner(again, r.suspects.notifySuspects(r.Events, seen, r.now()))
	if a.foreign {
		again = step.Sooner(again, foreignRecheck)
	}
	if a.postponed > 0 || conditions.postponed() || variables.postponed() || hinting.postponed || unbinding.postponed || stamps.until.postponed {
		again = minRetry
	}
	r.reportFailed(seen.namespace, o)
	r.reportPaused(seen.namespace, seen.paused())
	return again, errors.Join(o.errs...)
}

// sweep removes the Leases and rights that have been unclaimed for a whole lease duration, and
// returns the time until the next sweep.
func (r *Reconciler) sweep(ctx context.Context, s store, seen *snapshot) (time.Duration, error) {
	now := r.now()
	unclaimed := step.Observe(r.unclaimed.in(seen.namespace), seen.Unclaimed(), now)
	r.unclaimed.set(seen.namespace, unclaimed)
	due, again := seen.Expire(unclaimed, now)
	if due.Empty() {
		return again, nil
	}
	done, postponed, err := s.remove(ctx, seen, due, r.now)
	for _, of := range done { // swept, or claimed again
		delete(unclaimed, of)
	}
	if postponed {
		again = minRetry
	}
	return again, err
}

// forget drops everything that this process remembers of a namespace that is gone.
func (r *Reconciler) forget(namespace string) {
	r.unclaimed.forget(namespace)
	r.shut.forget(namespace)
	r.shortages.forget(namespace)
	r.refused.forget(namespace)
	r.suspects.forget(namespace)
	r.reportShortage(namespace, 0)
	r.reportBehind(namespace, 0)
	r.reportFailed(namespace, outcome{})
	r.reportPaused(namespace, nil)
	r.notifier.forget(namespace)
}

// reportShortage calls Shortage, if set, with the number of shards of a namespace that have no running pod.
func (r *Reconciler) reportShortage(namespace string, shards int) {
	if r.Shortage != nil {
		r.Shortage(namespace, shards)
	}
}

// reportBehind calls Behind, if set, with the number of claimed slots of a namespace that lack
// their Leases or rights.
func (r *Reconciler) reportBehind(namespace string, slots int) {
	if r.Behind != nil {
		r.Behind(namespace, slots)
	}
}

// reportFailed calls Failed, if set, for each step of a reconciliation.
func (r *Reconciler) reportFailed(namespace string, o outcome) {
	if r.Failed == nil {
		return
	}
	for _, step := range steps {
		failed := 0
		if o.failed[step] {
			failed = 1
		}
		r.Failed(namespace, step, failed)
	}
}

// reportPaused calls Paused, if set, for each value of [api.Pause], with the number of slots that
// have this pause.
func (r *Reconciler) reportPaused(namespace string, slots map[api.Pause]int) {
	if r.Paused == nil {
		return
	}
	for _, pause := range []api.Pause{api.PauseHold, api.PauseStop, api.PauseRecover} {
		r.Paused(namespace, string(pause), slots[pause])
	}
}

func (r *Reconciler) now() time.Time {
	if r.Now == nil {
		return time.Now()
	}
	return r.Now()
}

const (
	// maxRetry bounds how long a new pod waits because of an earlier failure.
	maxRetry = 5 * time.Second
	// maxConcurrent bounds the namespaces that are reconciled at the same time.
	maxConcurrent = 4
)

// SetupWithManager registers the reconciler with the manager. The manager calls the
// reconciler for a namespace after each relevant change there.
func (r *Reconciler) SetupWithManager(m ctrl.Manager) error {
	r.pager = process
	toNamespace := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: o.GetNamespace()}}}
	})
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](minRetry, maxRetry)
	b := ctrl.NewControllerManagedBy(m).
		Named("enroll").
		For(&corev1.Namespace{}, builder.WithPredicates(changes(sameNamespace)))
	for _, w := range watched() {
		b = b.Watches(w.kind, toNamespace, builder.WithPredicates(w.changes))
	}
	return b.
		WithOptions(controller.Options{
			MaxConcurrentReconciles: maxConcurrent, RateLimiter: limiter,
			// A process that becomes the leader again registers another controller of the same
			// name.
			SkipNameValidation: new(true),
		}).
		Complete(reconcile.Func(func(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
			again, err := r.Namespace(ctx, request.Name)
			if raced(err) {
				// A race is normal: another process, or an agent, was faster.
				return reconcile.Result{RequeueAfter: minRetry}, nil
			}
			return reconcile.Result{RequeueAfter: again}, err
		}))
}

// patience is the time after which a reconciliation creates no further Lease. Each slot takes two or
// three writes, and few namespaces are reconciled at the same time. So without this bound, a user
// with thousands of slots would delay the slots of all other namespaces.
const patience = time.Second

// stintTime bounds one of the smaller steps of a reconciliation. A reconciliation has six such
// steps beside the admission of slots and the sweep, and each of these two has [patience].
const stintTime = patience / 4

// stint bounds the time of a step. A user can make thousands of objects that need a write each. So
// without the bound, a few namespaces would keep all workers of enroll busy.
type stint struct {
	now func() time.Time
	// until is the end of the stint. Before the first call of the method "over", until is zero.
	until time.Time
	// postponed reports that the step has left work for the next reconciliation.
	postponed bool
}

// newStint returns a stint that begins with the first call of the method "over".
func newStint(now func() time.Time) *stint { return &stint{now: now} }

// over reports whether the step must leave the next piece of work for the next reconciliation. The
// first call returns false, so each reconciliation does something.
func (s *stint) over() bool {
	if s.until.IsZero() {
		s.until = s.now().Add(stintTime)
		return false
	}
	s.postponed = s.postponed || !s.now().Before(s.until)
	return s.postponed
}

// anyFirst returns the elements in their order, but begins with a random element. So elements that
// fail never keep others waiting.
func anyFirst[T any](all []T) []T {
	if len(all) == 0 {
		return nil
	}
	first := rand.IntN(len(all)) //nolint:gosec // no secret
	return slices.Concat(all[first:], all[:first])
}

var (
	// ErrForeign means that an object has a name that enroll needs, although enroll did not make
	// the object.
	ErrForeign = errors.New("exists and is not ours: remove this object, because enroll needs its name")

	// errAgain means that a step is half done, or that the cache is stale. The next attempt does
	// the rest.
	errAgain = errors.New("to be done again")

	// errFinalizers means that somebody's finalizers keep an object that enroll has deleted. A new
	// attempt is not enough, so the attempts become rarer.
	errFinalizers = errors.New("finalizers keep the deleted object: remove them, because enroll needs its name")
)

// raced reports whether each part of the error is a failed compare-and-swap, a failed creation of
// an object that exists already, or errAgain. A new attempt is then enough.
func raced(err error) bool {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return !slices.ContainsFunc(joined.Unwrap(), func(err error) bool { return !raced(err) })
	}
	return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || errors.Is(err, errAgain)
}

// A reconciliation has these steps. A metric has a label whose values are the names of the steps.
const (
	stepRead        = "read"
	stepSlots       = "slots"
	stepConditions  = "conditions"
	stepVariables   = "variables"
	stepPullSecrets = "pull-secrets"
	stepBindings    = "bindings"
	stepSweep       = "sweep"
	stepEvents      = "events"
	stepStamps      = "stamps"
	stepHints       = "hints"
)

var steps = []string{
	stepRead, stepSlots, stepConditions, stepVariables, stepPullSecrets, stepBindings, stepSweep, stepEvents, stepStamps, stepHints,
}

// outcome has the errors of a reconciliation, and the steps that have failed.
type outcome struct {
	errs   []error
	failed map[string]bool
}

// add keeps the error of a step, unless the error is nil. If the step lost a race, the step does not
// count as failed, because the next attempt comes soon.
func (o *outcome) add(step string, err error) {
	if err == nil {
		return
	}
	o.errs = append(o.errs, err)
	if raced(err) {
		return
	}
	if o.failed == nil {
		o.failed = map[string]bool{}
	}
	o.failed[step] = true
}
