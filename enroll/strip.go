// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"maps"
	"strings"
	"unique"

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
	"github.com/metaparticle-io/metaparticle/enroll/step"
	"github.com/metaparticle-io/metaparticle/listing"
)

const (
	// maxText bounds the bytes of each annotation that the cache keeps of a workload. The longest valid
	// value is a list of 32 locks, which has 8 KiB. So a value that the cache cuts is not valid.
	maxText = 16 << 10
	// maxEntries bounds the entries of each map and list that the cache keeps. Metaparticle has fewer
	// annotations, so an object with more entries has annotations that no version knows.
	maxEntries = 64
	// maxSelector bounds the labels and values of a selector that the cache keeps.
	maxSelector = 128
	// maxWord bounds the bytes of each text in the rules of a Role that the cache keeps whole. Enroll
	// writes names of objects into rules, and no longer text.
	maxWord = 253
	// maxRules bounds the bytes of all texts in the rules of a Role that the cache keeps whole. Enroll
	// writes a few short texts, the names in the Role's annotation, and the next Lease of each name. An
	// annotation has at most 256 KiB.
	maxRules = 2*256<<10 + 1<<10
)

// controlled replaces the reference to a controller that no object can be. Enroll reads only whether
// a workload or a pod has such a controller. The cache's objects share the value, so no caller may
// change the value.
var controlled = []metav1.OwnerReference{{Kind: "?", Controller: new(true)}}

// stripMeta returns the metadata that enroll reads in a pod or workload.
func stripMeta(whole *metav1.ObjectMeta) metav1.ObjectMeta {
	kept := metav1.ObjectMeta{
		Namespace: whole.Namespace, Name: whole.Name, UID: whole.UID, ResourceVersion: whole.ResourceVersion,
		CreationTimestamp: whole.CreationTimestamp, DeletionTimestamp: whole.DeletionTimestamp,
		Annotations: onlyOurs(whole.Annotations),
	}
	switch owner := metav1.GetControllerOf(whole); {
	case owner == nil:
	case podspec.IsValidOwner(owner):
		kept.OwnerReferences = []metav1.OwnerReference{*owner}
	default:
		kept.OwnerReferences = controlled
	}
	return kept
}

// stripWorkload returns those parts of a workload that enroll reads. For a workload without an
// annotation of ours, enroll reads nothing else.
func stripWorkload(o client.Object) (metav1.ObjectMeta, *metav1.LabelSelector, corev1.PodTemplateSpec) {
	meta := stripMeta(metaOf(o))
	if !isAnnotated(o) {
		return meta, nil, corev1.PodTemplateSpec{}
	}
	whole := template(o)
	return meta, small(selector(o)), corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Annotations: onlyOurs(whole.Annotations)},
		Spec:       corev1.PodSpec{ServiceAccountName: whole.Spec.ServiceAccountName},
	}
}

// stripLabels returns the labels of a pod, which selectors of Services name. Of very many labels, only
// ours stays, so no Event says that a Service's connections are refused. Pods of one workload share the
// texts.
func stripLabels(labels map[string]string) map[string]string {
	kept := map[string]string{}
	for key, value := range labels {
		if len(labels) <= maxEntries && len(key)+len(value) <= maxNote || key == api.GatedLabel {
			kept[unique.Make(key).Value()] = unique.Make(value).Value()
		}
	}
	return kept
}

// stripService drops the fields of a Service that enroll never reads. A Service that sends nothing to
// pods, or that is very large, keeps no ports.
func stripService(s *corev1.Service) {
	kept := corev1.ServiceSpec{Type: s.Spec.Type}
	size := 0
	for key, value := range s.Spec.Selector {
		size += len(key) + len(value)
	}
	if size > 0 && size <= maxText && len(s.Spec.Selector) <= maxEntries && len(s.Spec.Ports) <= maxEntries && s.Spec.ClusterIP != corev1.ClusterIPNone && s.Spec.Type != corev1.ServiceTypeExternalName {
		kept.Selector = s.Spec.Selector
		for _, p := range s.Spec.Ports {
			kept.Ports = append(kept.Ports, corev1.ServicePort{Port: p.Port, Protocol: p.Protocol, TargetPort: p.TargetPort})
		}
	}
	s.ObjectMeta = metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name, UID: s.UID, ResourceVersion: s.ResourceVersion}
	s.Spec, s.Status = kept, corev1.ServiceStatus{}
}

func metaOf(o client.Object) *metav1.ObjectMeta {
	return o.(metav1.ObjectMetaAccessor).GetObjectMeta().(*metav1.ObjectMeta)
}

// small returns the selector, or nil for a very large selector. Without the selector, no Event says
// that pods of the workload run without a gate.
func small(selector *metav1.LabelSelector) *metav1.LabelSelector {
	if selector == nil {
		return nil
	}
	size := len(selector.MatchLabels) + len(selector.MatchExpressions)
	for _, r := range selector.MatchExpressions {
		size += len(r.Values)
	}
	if size > maxSelector {
		return nil
	}
	return selector
}

// onlyOurs returns a copy of those annotations whose keys have our prefix. In the copy, long values
// are cut. A pod's list of slots stays whole, because enroll gives the pod rights on all these slots.
func onlyOurs(annotations map[string]string) map[string]string {
	var kept map[string]string
	for key, value := range annotations {
		if !strings.HasPrefix(key, api.Prefix) || len(kept) == maxEntries {
			continue
		}
		if kept == nil {
			kept = map[string]string{}
		}
		if key != api.SlotsAnnotation {
			value = value[:min(len(value), maxText)]
		}
		kept[key] = strings.Clone(value)
	}
	return kept
}

// nameless returns the metadata of a Role or RoleBinding whose name is longer than any name of
// enroll. The API server bounds no such name. Without the label, enroll ignores the object, and all
// such objects of a namespace are one object of the cache.
func nameless(m *metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: m.Namespace, UID: m.UID, ResourceVersion: m.ResourceVersion}
}

// stripRole drops rules and metadata that enroll has not written, if they have very many entries or
// very long texts. Enroll writes Roles of the cache back to the API server, so the next write repairs
// such a Role.
func stripRole(r *rbacv1.Role) {
	if len(r.Name) > step.MaxRoleName {
		*r = rbacv1.Role{ObjectMeta: nameless(&r.ObjectMeta)}
		return
	}
	stripExcess(&r.ObjectMeta)
	if isForged(r.Annotations[leasesAnnotation]) {
		r.Annotations = maps.Clone(r.Annotations)
		delete(r.Annotations, leasesAnnotation)
	}
	names, bytes, longest := 0, 0, 0
	for _, rule := range r.Rules {
		for _, texts := range [][]string{rule.ResourceNames, rule.Resources, rule.Verbs, rule.APIGroups, rule.NonResourceURLs} {
			names += len(texts)
			for _, text := range texts {
				bytes, longest = bytes+len(text), max(longest, len(text))
			}
		}
	}
	if names > 8*step.MaxSlotsPerRole || bytes > maxRules || longest > maxWord {
		r.Rules = nil
	}
}

// stripRoleBinding drops all subjects but the first two, and cuts long texts. Enroll trusts no
// RoleBinding with two subjects. A cut text equals no name that enroll writes.
func stripRoleBinding(b *rbacv1.RoleBinding) {
	if len(b.Name) > step.MaxRoleName {
		*b = rbacv1.RoleBinding{ObjectMeta: nameless(&b.ObjectMeta)}
		return
	}
	stripExcess(&b.ObjectMeta)
	if len(b.Subjects) > 2 {
		b.Subjects = append([]rbacv1.Subject(nil), b.Subjects[:2]...)
	}
	for i := range b.Subjects {
		s := &b.Subjects[i]
		s.Kind, s.APIGroup, s.Name, s.Namespace = cut(s.Kind), cut(s.APIGroup), cut(s.Name), cut(s.Namespace)
	}
	b.RoleRef.APIGroup, b.RoleRef.Kind, b.RoleRef.Name = cut(b.RoleRef.APIGroup), cut(b.RoleRef.Kind), cut(b.RoleRef.Name)
}

// stripExcess drops all metadata that enroll has not written, if the metadata has very many entries or
// very long texts.
func stripExcess(m *metav1.ObjectMeta) {
	if len(m.Labels)+len(m.Annotations)+len(m.Finalizers)+len(m.OwnerReferences) <= maxEntries && foreignBytes(m) <= maxText {
		return
	}
	memory, remembers := m.Annotations[leasesAnnotation]
	*m = metav1.ObjectMeta{
		Namespace: m.Namespace, Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion,
		CreationTimestamp: m.CreationTimestamp, DeletionTimestamp: m.DeletionTimestamp,
		Labels: map[string]string{api.ManagedLabel: m.Labels[api.ManagedLabel]},
	}
	if remembers {
		m.Annotations = map[string]string{leasesAnnotation: memory}
	}
}

// foreignBytes returns the number of bytes of the texts in the metadata that users can make long. The
// annotation of enroll does not count, because the slots of a Role can make that annotation long.
func foreignBytes(m *metav1.ObjectMeta) int {
	bytes := len(m.GenerateName)
	for key, value := range m.Labels {
		bytes += len(key) + len(value)
	}
	for key, value := range m.Annotations {
		if key != leasesAnnotation {
			bytes += len(key) + len(value)
		}
	}
	for _, finalizer := range m.Finalizers {
		bytes += len(finalizer)
	}
	for _, o := range m.OwnerReferences {
		bytes += len(o.APIVersion) + len(o.Kind) + len(o.Name) + len(o.UID)
	}
	return bytes
}

// maxNote bounds the bytes of each text that the cache keeps of a Lease or a RoleBinding. Agents and
// enroll write longer texts only into the annotation of done keys. Enroll reads only whether this
// annotation is empty.
const maxNote = 512

// notes are the annotations that enroll reads in a Lease.
var notes = []string{api.PausedAnnotation, api.DoneAnnotation, api.OpenedAnnotation, api.StampAnnotation, api.AloneAnnotation}

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
	spec := coordinationv1.LeaseSpec{LeaseDurationSeconds: l.Spec.LeaseDurationSeconds, RenewTime: l.Spec.RenewTime}
	if l.Spec.HolderIdentity != nil {
		spec.HolderIdentity = new(cut(*l.Spec.HolderIdentity))
	}
	l.ObjectMeta, l.Spec = kept, spec
}

// cut returns a copy of the first bytes of the text, at most maxNote. With a copy, the garbage
// collector can free the whole text.
func cut(text string) string { return strings.Clone(text[:min(len(text), maxNote)]) }

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
		o.ObjectMeta, o.Spec, o.Status = stripMeta(&o.ObjectMeta), podspec.Strip(&o.Spec), stripStatus(o)
		o.Labels = labels
	case *appsv1.Deployment:
		meta, selector, template := stripWorkload(o)
		o.ObjectMeta, o.Spec = meta, appsv1.DeploymentSpec{Replicas: o.Spec.Replicas, Selector: selector, Template: template}
		o.Status = appsv1.DeploymentStatus{}
	case *appsv1.StatefulSet:
		meta, selector, template := stripWorkload(o)
		o.ObjectMeta, o.Spec = meta, appsv1.StatefulSetSpec{Replicas: o.Spec.Replicas, Selector: selector, Template: template}
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
