// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"errors"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

const (
	// firstRetry is about what another process takes to end what ours ran into.
	firstRetry = 10 * time.Millisecond
	// lastRetry is as long as a new pod may be kept waiting by an old failure.
	lastRetry = 5 * time.Second
	// atOnce is how many namespaces are worked on at a time.
	atOnce = 4
)

// SetupWithManager registers the reconciler: it is called for a namespace
// whenever anything of interest happens in it.
func (r *Reconciler) SetupWithManager(m ctrl.Manager) error {
	toNamespace := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: o.GetNamespace()}}}
	})
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](firstRetry, lastRetry)
	b := ctrl.NewControllerManagedBy(m).
		Named("enroll").
		For(&corev1.Namespace{}, builder.WithPredicates(changes(sameNamespace)))
	for _, w := range watched() {
		b = b.Watches(w.kind, toNamespace, builder.WithPredicates(w.changes))
	}
	return b.
		WithOptions(controller.Options{
			MaxConcurrentReconciles: atOnce, RateLimiter: limiter,
			// A process has one for each term that it is elected for.
			SkipNameValidation: new(true),
		}).
		Complete(reconcile.Func(func(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
			again, err := r.Namespace(ctx, request.Name)
			if raced(err) {
				// No news: another process, or an agent, was faster.
				return reconcile.Result{RequeueAfter: firstRetry}, nil
			}
			return reconcile.Result{RequeueAfter: again}, err
		}))
}

// raced: all that went wrong is a compare-and-swap that failed, or a creation
// that came second.
func raced(err error) bool {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return !slices.ContainsFunc(joined.Unwrap(), func(err error) bool { return !raced(err) })
	}
	return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || errors.Is(err, errAgain)
}
