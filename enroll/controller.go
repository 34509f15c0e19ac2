// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
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
