// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"errors"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
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
	// Leases change with every renewal. What matters is that one comes or goes;
	// the sweep looks by the clock.
	comesOrGoes := builder.WithPredicates(predicate.Funcs{
		UpdateFunc: func(event.UpdateEvent) bool { return false },
	})
	// Most workloads have nothing to do with us; the old object counts, too.
	ours := builder.WithPredicates(predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool { return isAnnotated(e.Object) },
		UpdateFunc: func(e event.UpdateEvent) bool { return isAnnotated(e.ObjectOld) || isAnnotated(e.ObjectNew) },
		DeleteFunc: func(e event.DeleteEvent) bool { return isAnnotated(e.Object) },
	})
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](firstRetry, lastRetry)
	return ctrl.NewControllerManagedBy(m).
		Named("enroll").
		For(&corev1.Namespace{}).
		Watches(&corev1.Pod{}, toNamespace).
		Watches(&coordinationv1.Lease{}, toNamespace, comesOrGoes).
		Watches(&rbacv1.Role{}, toNamespace).
		Watches(&rbacv1.RoleBinding{}, toNamespace).
		Watches(&appsv1.Deployment{}, toNamespace, ours).
		Watches(&appsv1.StatefulSet{}, toNamespace, ours).
		Watches(&appsv1.DaemonSet{}, toNamespace, ours).
		Watches(&batchv1.CronJob{}, toNamespace, ours).
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

func isAnnotated(object client.Object) bool {
	return annotated(object.GetAnnotations()) || annotated(template(object).Annotations)
}

// template is the pod template of a workload.
func template(object client.Object) *corev1.PodTemplateSpec {
	switch o := object.(type) {
	case *appsv1.Deployment:
		return &o.Spec.Template
	case *appsv1.StatefulSet:
		return &o.Spec.Template
	case *appsv1.DaemonSet:
		return &o.Spec.Template
	case *batchv1.CronJob:
		return &o.Spec.JobTemplate.Spec.Template
	default:
		return &corev1.PodTemplateSpec{}
	}
}
