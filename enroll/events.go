// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"maps"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
)

// watch is a kind of object in a namespace, and which of its changes matter.
type watch struct {
	kind    client.Object
	changes predicate.Predicate
}

// watched are the kinds on which the look at a namespace depends.
func watched() []watch {
	return []watch{
		{&corev1.Pod{}, changes(sameAsk)},
		{&coordinationv1.Lease{}, changes(isLease)},
		{&rbacv1.Role{}, changes(sameVersion)},
		{&rbacv1.RoleBinding{}, changes(sameVersion)},
		{&appsv1.Deployment{}, annotatedChanges()},
		{&appsv1.StatefulSet{}, annotatedChanges()},
		{&appsv1.DaemonSet{}, annotatedChanges()},
		{&batchv1.CronJob{}, annotatedChanges()},
	}
}

// changes passes on what comes and goes, and what is not the same as before. A
// namespace is looked at as a whole, so events that change nothing are dear:
// kubelets write a pod's status, controllers a workload's, and agents renew.
func changes(same func(before, after client.Object) bool) predicate.Predicate {
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool { return !same(e.ObjectOld, e.ObjectNew) },
	}
}

// annotatedChanges passes on changes of annotated workloads. Most workloads have nothing to do
// with us; the old object counts, too.
func annotatedChanges() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool { return isAnnotated(e.Object) },
		UpdateFunc: func(e event.UpdateEvent) bool {
			return (isAnnotated(e.ObjectOld) || isAnnotated(e.ObjectNew)) && !sameWorkload(e.ObjectOld, e.ObjectNew)
		},
		DeleteFunc: func(e event.DeleteEvent) bool { return isAnnotated(e.Object) },
	}
}

// isLease is true of any two: what matters is that a Lease comes or goes; the
// sweep looks by the clock.
func isLease(_, _ client.Object) bool { return true }

func sameVersion(before, after client.Object) bool {
	return before.GetResourceVersion() == after.GetResourceVersion()
}

func sameNamespace(before, after client.Object) bool {
	return maps.Equal(before.GetLabels(), after.GetLabels()) &&
		before.GetDeletionTimestamp().IsZero() == after.GetDeletionTimestamp().IsZero()
}

func sameAsk(before, after client.Object) bool {
	return asks(before.(*corev1.Pod)) == asks(after.(*corev1.Pod))
}

// sameWorkload compares what the cache has kept of a workload and enroll reads.
func sameWorkload(before, after client.Object) bool {
	return maps.Equal(onlyOurs(maps.Clone(before.GetAnnotations())), onlyOurs(maps.Clone(after.GetAnnotations()))) &&
		equality.Semantic.DeepEqual(metav1.GetControllerOf(before), metav1.GetControllerOf(after)) &&
		equality.Semantic.DeepEqual(template(before), template(after)) &&
		equality.Semantic.DeepEqual(selector(before), selector(after))
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

// selector is the selector of a workload's pods; nil for a CronJob.
func selector(object client.Object) *metav1.LabelSelector {
	switch o := object.(type) {
	case *appsv1.Deployment:
		return o.Spec.Selector
	case *appsv1.StatefulSet:
		return o.Spec.Selector
	case *appsv1.DaemonSet:
		return o.Spec.Selector
	default:
		return nil
	}
}
