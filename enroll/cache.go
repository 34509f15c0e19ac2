// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
	"github.com/metaparticle-io/metaparticle/listing"
)

// process reads the lists of all informers and reconciliations of the process.
var process = listing.NewPager()

// NewInformer makes the informers of the cache for a manager that runs a [Reconciler]. The manager needs
// the transport [listing.BoundPages].
var NewInformer = process.Informers(strip)

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
		&corev1.Service{}:       {Transform: strip},
	}, nil
}

// strip drops the fields that enroll never reads, and bounds the other fields. Each user who may
// create pods or workloads in any namespace can write long texts and long lists into them. An entry
// of a list takes a few times as much memory as its text in a request. Before a write to a Lease,
// enroll reads the whole Lease from the API server.
func strip(in any) (any, error) {
	object, ok := in.(client.Object)
	if !ok {
		return in, nil
	}
	object.SetManagedFields(nil)
	switch o := object.(type) {
	case *coordinationv1.Lease:
		stripLease(o)
	case *rbacv1.Role:
		stripRole(o)
	case *rbacv1.RoleBinding:
		stripRoleBinding(o)
	case *corev1.Service:
		stripService(o)
	case *corev1.Pod:
		labels := stripLabels(o.Labels)
		o.ObjectMeta, o.Spec, o.Status = stripMeta(&o.ObjectMeta), podspec.Strip(&o.Spec), corev1.PodStatus{Phase: o.Status.Phase}
		o.Labels = labels
	case *appsv1.Deployment:
		meta, selector, template := stripWorkload(o)
		o.ObjectMeta, o.Spec = meta, appsv1.DeploymentSpec{Selector: selector, Template: template}
		o.Status = appsv1.DeploymentStatus{}
	case *appsv1.StatefulSet:
		meta, selector, template := stripWorkload(o)
		o.ObjectMeta, o.Spec = meta, appsv1.StatefulSetSpec{Selector: selector, Template: template}
		o.Status = appsv1.StatefulSetStatus{}
	case *appsv1.DaemonSet:
		meta, selector, template := stripWorkload(o)
		o.ObjectMeta, o.Spec = meta, appsv1.DaemonSetSpec{Selector: selector, Template: template}
		o.Status = appsv1.DaemonSetStatus{}
	case *batchv1.CronJob:
		meta, _, template := stripWorkload(o)
		o.ObjectMeta, o.Spec = meta, batchv1.CronJobSpec{}
		o.Spec.JobTemplate.Spec.Template = template
		o.Status = batchv1.CronJobStatus{}
	}
	return object, nil
}
