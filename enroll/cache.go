// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"maps"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
)

// Cache returns the cache options for a manager that runs a [Reconciler]. To save memory, the cache
// keeps only those pods that are gated, and only those Leases, Roles and RoleBindings that enroll
// made. Of pods, workloads and Leases, the cache keeps only the fields that enroll reads.
func Cache() (map[client.Object]cache.ByObject, error) {
	exists, err := labels.NewRequirement(api.ManagedLabel, selection.Exists, nil)
	if err != nil {
		return nil, err
	}
	ours := labels.NewSelector().Add(*exists)
	gated, err := gatedPods()
	if err != nil {
		return nil, err
	}
	return map[client.Object]cache.ByObject{
		&corev1.Pod{}:           {Label: gated, Transform: strip},
		&coordinationv1.Lease{}: {Label: ours, Transform: strip},
		&rbacv1.Role{}:          {Label: ours, Transform: strip},
		&rbacv1.RoleBinding{}:   {Label: ours, Transform: strip},
		&appsv1.Deployment{}:    {Transform: strip},
		&appsv1.StatefulSet{}:   {Transform: strip},
		&appsv1.DaemonSet{}:     {Transform: strip},
		&batchv1.CronJob{}:      {Transform: strip},
	}, nil
}

// strip drops the fields that enroll never reads. Enroll writes Roles and RoleBindings of the cache
// back to the API server, so these objects lose only their managed fields. Before a write to a
// Lease, enroll reads the whole Lease from the API server.
func strip(in any) (any, error) {
	object, ok := in.(client.Object)
	if !ok {
		return in, nil
	}
	object.SetManagedFields(nil)
	switch o := object.(type) {
	case *coordinationv1.Lease:
		stripLease(o)
		return o, nil
	case *corev1.Pod:
		o.Spec = podspec.Strip(&o.Spec)
		o.Status = corev1.PodStatus{Phase: o.Status.Phase}
	case *appsv1.Deployment:
		o.Spec = appsv1.DeploymentSpec{Selector: o.Spec.Selector, Template: bare(o.Spec.Template)}
		o.Status = appsv1.DeploymentStatus{}
	case *appsv1.StatefulSet:
		o.Spec = appsv1.StatefulSetSpec{Selector: o.Spec.Selector, Template: bare(o.Spec.Template)}
		o.Status = appsv1.StatefulSetStatus{}
	case *appsv1.DaemonSet:
		o.Spec = appsv1.DaemonSetSpec{Selector: o.Spec.Selector, Template: bare(o.Spec.Template)}
		o.Status = appsv1.DaemonSetStatus{}
	case *batchv1.CronJob:
		bare := bare(o.Spec.JobTemplate.Spec.Template)
		o.Spec = batchv1.CronJobSpec{}
		o.Spec.JobTemplate.Spec.Template = bare
		o.Status = batchv1.CronJobStatus{}
	default:
		return object, nil
	}
	object.SetAnnotations(onlyOurs(object.GetAnnotations()))
	return object, nil
}

// maxNote bounds the bytes of each text that the cache keeps of a Lease. Agents and enroll write
// longer texts only into the annotation of done keys. Enroll reads only whether this annotation is
// empty.
const maxNote = 512

// notes are the annotations that enroll reads in a Lease.
var notes = []string{api.PausedAnnotation, api.DoneAnnotation, api.OpenedAnnotation, api.StampAnnotation}

// owned replaces the owner references of each Lease that has owners, because enroll reads only
// whether a Lease has owners. These Leases share the value, so no caller may change it.
var owned = []metav1.OwnerReference{{}}

// stripLease drops the fields of a Lease that enroll never reads, and cuts long texts in the other
// fields. Every user who may create Leases can write long texts, and can also write the label of
// enroll.
func stripLease(l *coordinationv1.Lease) {
	kept := metav1.ObjectMeta{
		Namespace: l.Namespace, Name: l.Name, UID: l.UID, ResourceVersion: l.ResourceVersion,
		CreationTimestamp: l.CreationTimestamp, DeletionTimestamp: l.DeletionTimestamp,
	}
	if value, ok := l.Labels[api.ManagedLabel]; ok {
		kept.Labels = map[string]string{api.ManagedLabel: value}
	}
	for _, key := range notes {
		if value, ok := l.Annotations[key]; ok {
			if kept.Annotations == nil {
				kept.Annotations = map[string]string{}
			}
			kept.Annotations[key] = cut(value)
		}
	}
	if len(l.OwnerReferences) > 0 {
		kept.OwnerReferences = owned
	}
	spec := coordinationv1.LeaseSpec{LeaseDurationSeconds: l.Spec.LeaseDurationSeconds}
	if l.Spec.HolderIdentity != nil {
		spec.HolderIdentity = new(cut(*l.Spec.HolderIdentity))
	}
	l.ObjectMeta, l.Spec = kept, spec
}

// cut returns a copy of the first bytes of the text, at most maxNote. With a copy, the garbage
// collector can free the whole text.
func cut(text string) string { return strings.Clone(text[:min(len(text), maxNote)]) }

func bare(template corev1.PodTemplateSpec) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Annotations: onlyOurs(template.Annotations)},
		Spec:       corev1.PodSpec{ServiceAccountName: template.Spec.ServiceAccountName},
	}
}

func onlyOurs(annotations map[string]string) map[string]string {
	maps.DeleteFunc(annotations, func(key, _ string) bool { return !strings.HasPrefix(key, api.Prefix) })
	return annotations
}
