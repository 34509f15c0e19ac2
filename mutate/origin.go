// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/metaparticle-io/metaparticle/api"
)

// judgeOrigin is what speaks against where a pod comes from, whatever is in it. An
// empty name of the pod itself is judged by the claim.
func judgeOrigin(pod *corev1.Pod, workload api.Workload) Refusals {
	var refusals Refusals
	bare := api.Workload{Kind: "Pod", Name: workload.Name}
	switch {
	case isStatic(pod):
		refusals.add(StaticPod, "its kubelet has created it to show what it runs")
	case workload == bare && workload.Name == "":
	case !workload.Valid():
		refusals.add(BadOwner, "it belongs to %q", workload.String())
	}
	return refusals
}

// isStatic: the pod mirrors a static pod of a node, by either mark of a kubelet.
func isStatic(pod *corev1.Pod) bool {
	_, mirrors := pod.Annotations[corev1.MirrorPodAnnotationKey]
	return mirrors || slices.ContainsFunc(pod.OwnerReferences, func(owner metav1.OwnerReference) bool {
		return owner.APIVersion == "v1" && owner.Kind == "Node"
	})
}

// groupOf is the workload that an owner reference names.
func groupOf(owner *metav1.OwnerReference) api.Workload {
	// A version that cannot be read has no group, and names no object.
	version, _ := schema.ParseGroupVersion(owner.APIVersion)
	return api.Workload{Group: version.Group, Kind: owner.Kind, Name: owner.Name}
}
