// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// judgeOrigin refuses the mirror of a static pod, and a pod whose owner has a kind or a name that
// no object can have. A bare pod may lack a name: package feature refuses it later, but only if the pod's
// claim needs the name.
func judgeOrigin(pod *corev1.Pod, workload api.Workload) reason.Refusals {
	var refusals reason.Refusals
	switch {
	case isStatic(pod):
		refusals.Add(reason.StaticPod, "the pod is the kubelet's mirror of a static pod")
	case workload == api.Workload{Kind: "Pod"}:
	case !workload.Valid():
		refusals.Add(reason.BadOwner, "the pod belongs to %q", workload.String())
	}
	return refusals
}

// isStatic reports whether the pod mirrors a static pod of a node. The kubelet annotates
// mirror pods, and makes its Node their owner. Either sign is enough for isStatic.
func isStatic(pod *corev1.Pod) bool {
	_, mirrors := pod.Annotations[corev1.MirrorPodAnnotationKey]
	return mirrors || slices.ContainsFunc(pod.OwnerReferences, func(owner metav1.OwnerReference) bool {
		return owner.APIVersion == "v1" && owner.Kind == "Node"
	})
}
