// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
)

// origin is the workload to which the webhook gives the slots of a pod.
type origin struct {
	// workload is the top-most controller of a known kind, or nil. The field "group" names the
	// workload of any kind, and is empty if no reference can be trusted.
	workload *unstructured.Unstructured
	group    api.Workload
}

// reader reads an object of the namespace by its name.
type reader func(ctx context.Context, name string, object client.Object) error

// originOf follows an owner reference. As the webhook does, originOf follows a built-in object only
// to the owner that [podspec.Above] returns. An owner of a namespace writes owner references. So a forged
// reference must not make a command act on the slots of another workload: the object must have the
// reference's UID. A reference that a person has made from an argument has no UID.
func originOf(ctx context.Context, read reader, at *metav1.OwnerReference) (o origin, err error) {
	first := true
	above := func(object metav1.Object) *metav1.OwnerReference {
		if !first && at.Kind != "Deployment" {
			return nil
		}
		first = false
		return podspec.Above(at.Kind, object)
	}
	for at != nil {
		version, err := schema.ParseGroupVersion(at.APIVersion)
		if err != nil {
			return o, fmt.Errorf("owner's version: %w", err)
		}
		group := api.Workload{Group: version.Group, Kind: at.Kind, Name: at.Name}
		known := kinds[at.Kind]
		if known == "" || schema.FromAPIVersionAndKind(known, at.Kind).Group != version.Group {
			// The webhook does not carry annotations from such a workload to its template.
			if !namedLikeKubernetes(at.Kind) {
				o.group = group
				return o, nil
			}
			core := verified(ctx, read, at)
			if core == nil {
				return o, nil
			}
			o.group = group
			at = above(core)
			continue
		}
		w := &unstructured.Unstructured{}
		w.SetAPIVersion(known)
		w.SetKind(at.Kind)
		if err := read(ctx, at.Name, w); err != nil {
			return o, err
		}
		if at.UID != "" && at.UID != w.GetUID() {
			return o, nil
		}
		o = origin{w, group}
		at = above(w)
	}
	return o, nil
}

// namedLikeKubernetes reports whether the kind differs at most by the case of its letters from a kind
// of Kubernetes that can control pods. The names of slots have the kind in small letters.
func namedLikeKubernetes(kind string) bool {
	return slices.ContainsFunc(api.Owners(api.Owner.Builtin), func(o api.Owner) bool { return strings.EqualFold(o.Kind, kind) })
}

// verified returns the object of the core group that the reference means; nil if there is none.
func verified(ctx context.Context, read reader, at *metav1.OwnerReference) *unstructured.Unstructured {
	if at.APIVersion != corev1.SchemeGroupVersion.String() {
		return nil
	}
	o := &unstructured.Unstructured{}
	o.SetAPIVersion(at.APIVersion)
	o.SetKind(at.Kind)
	if read(ctx, at.Name, o) != nil || o.GetUID() != at.UID {
		return nil
	}
	return o
}

// makers has the selector of each controller that makes pods of a workload.
type makers map[types.UID]labels.Selector

// made reports whether one of the controllers has made the pod. A user who may create pods can write
// any owner reference. But a controller gives up, or deletes, the pods that it has not made. So a pod
// counts only if its controller keeps such a pod.
func (m makers) made(pod *corev1.Pod, workload *unstructured.Unstructured) bool {
	of := metav1.GetControllerOf(pod)
	if of == nil || m[of.UID] == nil || !m[of.UID].Matches(labels.Set(pod.Labels)) {
		return false
	}
	if workload == nil || workload.GetUID() != of.UID || workload.GetKind() != "StatefulSet" {
		return true
	}
	// A StatefulSet ignores a pod with a foreign name.
	ordinal, own := strings.CutPrefix(pod.Name, workload.GetName()+"-")
	return own && ordinal != "" && strings.Trim(ordinal, "0123456789") == ""
}

// selectorOf returns the selector of the pods that the object makes. An object without a selector
// selects all pods, and an object with a malformed selector selects none.
func selectorOf(of *unstructured.Unstructured) labels.Selector {
	found, _, err := unstructured.NestedFieldNoCopy(of.Object, "spec", "selector")
	if err == nil && found == nil {
		return labels.Everything()
	}
	fields, isMap := found.(map[string]any)
	var written metav1.LabelSelector
	if !isMap || runtime.DefaultUnstructuredConverter.FromUnstructured(fields, &written) != nil {
		return labels.Nothing()
	}
	selector, err := metav1.LabelSelectorAsSelector(&written)
	if err != nil {
		return labels.Nothing()
	}
	return selector
}
