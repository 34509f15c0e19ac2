// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"slices"
	"unicode/utf8"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
)

// longest is the largest number of characters in the message of an Event. A policy lets no agent
// write a longer message.
const longest = 1024

// read lists the annotations from which the slots are computed.
var read = []string{
	api.DoneAnnotation, api.FailuresAnnotation, api.PausedAnnotation, api.YieldAnnotation, api.StampAnnotation, api.OpenedAnnotation,
	api.SuccessorAnnotation, api.WorkloadAnnotation, api.HoldAnnotation, api.TokenAnnotation, api.ServingAnnotation, api.SlotsAnnotation,
}

// strip returns an object with the fields that package view reads, and no others. So the caches
// keep no value of a pod's environment, and need little memory for each pod. Objects of other
// types, which client-go may pass, stay as they are.
func strip(object any) (any, error) {
	switch o := object.(type) {
	case *coordinationv1.Lease:
		return &coordinationv1.Lease{ObjectMeta: metaOf(o.ObjectMeta), Spec: o.Spec}, nil
	case *corev1.Pod:
		p := &corev1.Pod{ObjectMeta: metaOf(o.ObjectMeta), Spec: specOf(&o.Spec)}
		p.Status.Phase, p.Status.StartTime = o.Status.Phase, o.Status.StartTime
		for _, c := range o.Status.Conditions {
			switch kept := (corev1.PodCondition{Type: c.Type, Status: c.Status}); c.Type {
			case api.ReadyCondition:
				kept.Reason, kept.Message = c.Reason, c.Message
				p.Status.Conditions = append(p.Status.Conditions, kept)
			case corev1.PodReady, corev1.PodInitialized:
				p.Status.Conditions = append(p.Status.Conditions, kept)
			default: // the page shows no other pod condition
			}
		}
		for _, c := range o.Status.ContainerStatuses {
			if c.State.Running != nil {
				p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{Name: c.Name, State: corev1.ContainerState{Running: c.State.Running}})
			}
		}
		return p, nil
	case *corev1.Event:
		e := &corev1.Event{
			ObjectMeta: metaOf(o.ObjectMeta), Reason: o.Reason, Message: o.Message,
			LastTimestamp: o.LastTimestamp, EventTime: o.EventTime, Series: o.Series,
			InvolvedObject: corev1.ObjectReference{
				Kind: o.InvolvedObject.Kind, Name: o.InvolvedObject.Name, UID: o.InvolvedObject.UID,
			},
		}
		if utf8.RuneCountInString(e.Message) > longest {
			e.Message = "" // no agent wrote the message
		}
		return e, nil
	}
	return object, nil
}

// metaOf returns the metadata that the caches and package view read.
func metaOf(m metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: m.Namespace, Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion,
		CreationTimestamp: m.CreationTimestamp, DeletionTimestamp: m.DeletionTimestamp,
		Labels: some(m.Labels, api.ManagedLabel, api.GatedLabel), Annotations: some(m.Annotations, read...),
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

// specOf returns a spec with only the parts of the gate, and the key of the pod's once claim.
func specOf(spec *corev1.PodSpec) corev1.PodSpec {
	kept := podspec.Strip(spec)
	for i, c := range spec.InitContainers {
		args := api.DefaultRunArgs()
		if args.OnceKey = api.RecallRunArgs(c.Args).OnceKey; c.Name == api.AgentContainer && args.OnceKey != "" {
			kept.InitContainers[i].Args = slices.Concat(kept.InitContainers[i].Args, args.Args())
		}
	}
	return kept
}
