// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"maps"
	"slices"

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

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
	"github.com/metaparticle-io/metaparticle/enroll/step"
)

// watch has a kind of object, and a predicate. The predicate selects the changes that matter to
// enroll.
type watch struct {
	kind    client.Object
	changes predicate.Predicate
}

// watched returns a [watch] for each kind of object that a snapshot contains.
func watched() []watch {
	return []watch{
		{&corev1.Pod{}, changes(sameClaims)},
		{&coordinationv1.Lease{}, changes(sameLease)},
		{&rbacv1.Role{}, changes(sameVersion)},
		{&rbacv1.RoleBinding{}, changes(sameVersion)},
		{&appsv1.Deployment{}, annotatedChanges()},
		{&appsv1.StatefulSet{}, annotatedChanges()},
		{&appsv1.DaemonSet{}, annotatedChanges()},
		{&batchv1.CronJob{}, annotatedChanges()},
		{&corev1.Service{}, changes(sameService)},
	}
}

// changes returns a predicate that lets through every creation and deletion, and each update for
// which the function "same" returns false. Each event costs a snapshot of the whole namespace. So
// the predicate drops the frequent updates: status writes by kubelets and controllers, and agents'
// renewals.
func changes(same func(before, after client.Object) bool) predicate.Predicate {
	return predicate.Funcs{
		UpdateFunc: func(e event.UpdateEvent) bool { return !same(e.ObjectOld, e.ObjectNew) },
	}
}

// annotatedChanges returns a predicate that drops the events of workloads without our annotations,
// because most workloads claim nothing. The predicate lets an update through if the workload had or
// has such an annotation, and if [sameWorkload] returns false.
func annotatedChanges() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool { return isAnnotated(e.Object) },
		UpdateFunc: func(e event.UpdateEvent) bool {
			return (isAnnotated(e.ObjectOld) || isAnnotated(e.ObjectNew)) && !sameWorkload(e.ObjectOld, e.ObjectNew)
		},
		DeleteFunc: func(e event.DeleteEvent) bool { return isAnnotated(e.Object) },
	}
}

// sameLease reports whether an update of a Lease changes neither the stamp, as [step.SameStamp] judges,
// nor the pause. The pause matters, because enroll counts the paused slots. The sweep of unclaimed
// Leases needs no events of updates, because enroll repeats that sweep by the clock.
func sameLease(before, after client.Object) bool {
	was, is := seenLease(before.(*coordinationv1.Lease)), seenLease(after.(*coordinationv1.Lease))
	return step.SameStamp(was, is) && api.PauseOf(was.Annotations) == api.PauseOf(is.Annotations)
}

// sameService reports whether an update of a Service changes nothing that enroll reads.
func sameService(before, after client.Object) bool {
	return equality.Semantic.DeepEqual(before.(*corev1.Service).Spec, after.(*corev1.Service).Spec)
}

func sameVersion(before, after client.Object) bool {
	return before.GetResourceVersion() == after.GetResourceVersion()
}

func sameNamespace(before, after client.Object) bool {
	return maps.Equal(before.GetLabels(), after.GetLabels()) &&
		before.GetDeletionTimestamp().IsZero() == after.GetDeletionTimestamp().IsZero()
}

// sameClaims reports whether an update of a pod leaves the pod's claims, conditions and barriers as
// they were. Nobody can change the conditions and the barriers of a living pod. But if a new pod of
// the same name replaces a pod, a stale cache can report that replacement as an update. So sameClaims
// compares the conditions and the barriers, too.
func sameClaims(before, after client.Object) bool {
	was, is := before.(*corev1.Pod), after.(*corev1.Pod)
	return claimFieldsOf(was) == claimFieldsOf(is) && slices.Equal(podspec.ConditionsOf(&was.Spec), podspec.ConditionsOf(&is.Spec)) &&
		slices.Equal(podspec.BarriersOf(&was.Spec), podspec.BarriersOf(&is.Spec))
}

// sameWorkload reports whether an update of a workload changes none of the fields that enroll
// reads.
func sameWorkload(before, after client.Object) bool {
	return replicas(before) == replicas(after) && maps.Equal(onlyOurs(before.GetAnnotations()), onlyOurs(after.GetAnnotations())) &&
		equality.Semantic.DeepEqual(metav1.GetControllerOf(before), metav1.GetControllerOf(after)) &&
		equality.Semantic.DeepEqual(template(before), template(after)) &&
		equality.Semantic.DeepEqual(selector(before), selector(after))
}
