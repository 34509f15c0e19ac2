// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"slices"
	"unicode/utf8"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
	"github.com/metaparticle-io/metaparticle/console/view"
	"github.com/metaparticle-io/metaparticle/diagnosis"
)

// These constants bound the objects in the caches. No agent writes an Event above the bounds, and
// no honest pod has more containers than the bound maxContainers.
const (
	// longest and longestReason are the largest numbers of characters in the message and in the
	// reason of an Event. A policy lets no agent write more.
	longest, longestReason = 1024, 128
	// longestIdentity is the largest number of bytes in the kind, the name and the uid of an
	// Event's object. A pod has a name of at most 253 bytes, and a uid of 36 bytes.
	longestIdentity = 253 + 64
	// maxContainers bounds the init containers that the caches keep of a pod, and also bounds the
	// other containers.
	maxContainers = 128
	// maxValue bounds the bytes of each annotation that the caches keep of a workload. The longest valid
	// value has 8 KiB.
	maxValue = 8 << 10
)

// strip returns an object with the fields that package view reads, and no others. So the caches
// keep no value of a pod's environment, and need little memory for each object, whatever a tenant
// writes. An object that package view ignores keeps only its name. Objects of other types, which
// client-go may pass, stay as they are.
func strip(object any) (any, error) {
	switch o := object.(type) {
	case *coordinationv1.Lease:
		return keepLease(o), nil
	case *corev1.Pod:
		return keepPod(o), nil
	case *corev1.Event:
		return keepEvent(o), nil
	case *appsv1.Deployment:
		kept := &appsv1.Deployment{}
		kept.ObjectMeta, kept.Spec.Template = keepWorkload(o)
		podspec.KeepAbove(&kept.ObjectMeta, o)
		kept.Status.Replicas = o.Status.Replicas
		for _, c := range o.Status.Conditions {
			if c.Type == appsv1.DeploymentReplicaFailure && len(kept.Annotations)+len(kept.Spec.Template.Annotations) > 0 {
				kept.Status.Conditions = []appsv1.DeploymentCondition{{
					Type: c.Type, Status: c.Status, Reason: api.Shortened(c.Reason, view.MaxWord), Message: api.Shortened(c.Message, view.MaxMessage),
				}}
			}
		}
		return kept, nil
	case *appsv1.StatefulSet:
		kept := &appsv1.StatefulSet{Status: appsv1.StatefulSetStatus{Replicas: o.Status.Replicas}}
		kept.ObjectMeta, kept.Spec.Template = keepWorkload(o)
		return kept, nil
	case *appsv1.DaemonSet:
		kept := &appsv1.DaemonSet{Status: appsv1.DaemonSetStatus{CurrentNumberScheduled: o.Status.CurrentNumberScheduled}}
		kept.ObjectMeta, kept.Spec.Template = keepWorkload(o)
		return kept, nil
	case *batchv1.Job:
		kept := &batchv1.Job{Status: batchv1.JobStatus{Active: o.Status.Active}}
		kept.ObjectMeta, kept.Spec.Template = keepWorkload(o)
		return kept, nil
	}
	return object, nil
}

// keepLease returns a copy of the Lease with only the fields that the cache keeps.
func keepLease(l *coordinationv1.Lease) *coordinationv1.Lease {
	kept := &coordinationv1.Lease{ObjectMeta: keepName(l.ObjectMeta)}
	if api.IsNextLease(l.Name) {
		kept.Labels = some(l.Labels, api.ManagedLabel)
		for key, value := range some(l.Annotations, api.WordsAnnotation, api.AloneAnnotation) {
			metav1.SetMetaDataAnnotation(&kept.ObjectMeta, key, api.Shortened(value, view.MaxWords))
		}
		return kept
	}
	if !api.IsSlot(l.Name) {
		return kept
	}
	kept.Labels = some(l.Labels, api.ManagedLabel)
	for key, most := range view.Notes {
		if value, ok := l.Annotations[key]; ok {
			metav1.SetMetaDataAnnotation(&kept.ObjectMeta, key, api.Shortened(value, most))
		}
	}
	kept.Spec = coordinationv1.LeaseSpec{
		LeaseDurationSeconds: l.Spec.LeaseDurationSeconds, LeaseTransitions: l.Spec.LeaseTransitions,
		AcquireTime: l.Spec.AcquireTime, RenewTime: l.Spec.RenewTime,
	}
	if holder := l.Spec.HolderIdentity; holder != nil {
		kept.Spec.HolderIdentity = new(api.Shortened(*holder, view.MaxIdentity))
	}
	return kept
}

// keepPod returns a copy of the pod with only the fields that the cache keeps.
func keepPod(p *corev1.Pod) *corev1.Pod {
	kept := &corev1.Pod{ObjectMeta: keepName(p.ObjectMeta), Spec: keepSpec(&p.Spec)}
	kept.Labels, kept.OwnerReferences = some(p.Labels, api.GatedLabel, view.PreferKey(p)), keepController(p)
	if slots := p.Annotations[api.SlotsAnnotation]; slots != "" {
		kept.Annotations = map[string]string{api.SlotsAnnotation: api.Shortened(slots, view.MaxSlots)}
	}
	kept.Status = diagnosis.Kept(p)
	kept.Status.StartTime = p.Status.StartTime
	for _, c := range p.Status.Conditions {
		known := slices.ContainsFunc(kept.Status.Conditions, func(other corev1.PodCondition) bool { return other.Type == c.Type })
		if !known && (c.Type == corev1.PodReady || c.Type == corev1.PodInitialized) { // the page shows no other pod condition
			kept.Status.Conditions = append(kept.Status.Conditions, corev1.PodCondition{Type: c.Type, Status: c.Status})
		}
	}
	for _, c := range p.Status.ContainerStatuses[:min(len(p.Status.ContainerStatuses), maxContainers)] {
		if c.State.Running != nil {
			kept.Status.ContainerStatuses = append(kept.Status.ContainerStatuses, corev1.ContainerStatus{Name: api.Shortened(c.Name, view.MaxWord), State: corev1.ContainerState{Running: c.State.Running}})
		}
	}
	return kept
}

// keepEvent returns a copy of the Event with only the fields that the cache keeps.
func keepEvent(e *corev1.Event) *corev1.Event {
	kept := &corev1.Event{ObjectMeta: keepName(e.ObjectMeta)}
	kept.Name = api.Shortened(e.Name, view.MaxIdentity) // the API server bounds the name of no Event
	of := e.InvolvedObject
	if utf8.RuneCountInString(e.Message) > longest || utf8.RuneCountInString(e.Reason) > longestReason ||
		len(of.Kind)+len(of.Name)+len(of.UID) > longestIdentity {
		return kept // no agent writes an Event with such long fields
	}
	kept.Reason, kept.Message = e.Reason, e.Message
	kept.LastTimestamp, kept.EventTime = e.LastTimestamp, e.EventTime
	if e.Series != nil {
		kept.Series = &corev1.EventSeries{LastObservedTime: e.Series.LastObservedTime}
	}
	kept.InvolvedObject = corev1.ObjectReference{Kind: of.Kind, Name: of.Name, UID: of.UID}
	return kept
}

// keepWorkload returns the metadata and the pod template that the caches keep of a workload, each with its
// annotations of ours. Few workloads claim, and only these have annotations.
func keepWorkload(o client.Object) (metav1.ObjectMeta, corev1.PodTemplateSpec) {
	own, written := view.Annotations(o)
	kept := metav1.ObjectMeta{
		Namespace: o.GetNamespace(), Name: o.GetName(), UID: o.GetUID(), ResourceVersion: o.GetResourceVersion(), OwnerReferences: keepController(o),
		Annotations: keepOurs(own),
	}
	return kept, corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Annotations: keepOurs(written)}}
}

// keepOurs returns the annotations of ours, which may be misspelt; nil for none. Of those that no version
// knows, people see [view.MostMistakes] at most, and only their keys.
func keepOurs(annotations map[string]string) map[string]string {
	var kept map[string]string
	keep := func(key string, most int) {
		if kept == nil {
			kept = map[string]string{}
		}
		kept[key] = api.Shortened(annotations[key], most)
	}
	for key := range annotations {
		if api.Known(key) {
			keep(key, maxValue)
		}
	}
	unknown := slices.DeleteFunc(api.Asking(annotations), api.Known)
	for _, key := range unknown[:min(len(unknown), view.MostMistakes)] {
		keep(key, view.MaxWord)
	}
	return kept
}

// keepController returns the reference to the controller of the object, which names the object's workload. A
// reference that no object can have keeps only that there is a controller.
func keepController(o metav1.Object) []metav1.OwnerReference {
	by := metav1.GetControllerOf(o)
	switch {
	case by == nil:
		return nil
	case !podspec.IsValidOwner(by):
		by = &metav1.OwnerReference{Kind: "?"}
	}
	return []metav1.OwnerReference{{APIVersion: by.APIVersion, Kind: by.Kind, Name: by.Name, Controller: new(true)}}
}

// keepName returns the metadata that the caches keep of an object. Except for the name of an Event,
// the API server bounds the size of each of these fields.
func keepName(m metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: m.Namespace, Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion,
		CreationTimestamp: m.CreationTimestamp, DeletionTimestamp: m.DeletionTimestamp,
	}
}

// some returns the entries with the given keys. The result is nil if no entry has such a key.
func some(all map[string]string, keys ...string) (kept map[string]string) {
	for _, key := range keys {
		if value, ok := all[key]; ok {
			if kept == nil {
				kept = map[string]string{}
			}
			kept[key] = value
		}
	}
	return kept
}

// keepSpec returns a spec with only the parts of the gate. The agent's arguments in the returned spec still state
// the key of a once claim, and when the slot moves to another pod.
func keepSpec(spec *corev1.PodSpec) corev1.PodSpec {
	kept := podspec.Strip(spec)
	kept.ServiceAccountName, kept.NodeName = "", api.Shortened(spec.NodeName, view.MaxIdentity)
	for i := range kept.InitContainers {
		part := &kept.InitContainers[i]
		c := spec.InitContainers[slices.IndexFunc(spec.InitContainers, func(c corev1.Container) bool { return c.Name == part.Name })]
		switch {
		case c.Name != api.AgentContainer:
			part.Args = nil // the page shows no conditions and no barriers
		case api.IsLocal(part.Args):
			part.Args = []string{api.LocalRole}
		default:
			args, of := api.DefaultRunArgs(), api.RecallRunArgs(c.Args)
			if args.YieldAfter, args.Prefer = of.YieldAfter, of.Prefer; len(of.OnceKey) <= view.MaxWord {
				args.OnceKey = of.OnceKey
			}
			if args.OnceKey != "" || args.YieldAfter != 0 || args.Prefer != (api.Preference{}) {
				part.Args = slices.Concat(part.Args, args.Args())
			}
		}
	}
	kept.InitContainers, kept.Containers = parts(kept.InitContainers), parts(kept.Containers)
	kept.ReadinessGates = slices.Clone(kept.ReadinessGates[:min(len(kept.ReadinessGates), 1)])
	return kept
}

// parts returns the containers that belong to a gate.
func parts(all []corev1.Container) (kept []corev1.Container) {
	for _, c := range all {
		if c.Name == api.AgentContainer || c.Name == api.WaitContainer || api.IsShim(c.Command) {
			kept = append(kept, c)
		}
	}
	return slices.Clip(kept[:min(len(kept), maxContainers)])
}
