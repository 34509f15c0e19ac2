// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
)

// condition returns the condition that the pod's agent wrote; false if there is
// none yet.
func condition(pod corev1.Pod) (corev1.PodCondition, bool) {
	for _, c := range pod.Status.Conditions {
		if c.Type == api.ReadyCondition {
			return c, true
		}
	}
	return corev1.PodCondition{}, false
}

// The words about a pod whose program asks for its slots itself.
const (
	localReason = "LocalAPI"
	asksItself  = "the program asks by the local API"
)

// ready reports whether the pod is Ready.
func ready(pod corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// unfit returns why the pod cannot hold next; empty if it can. The Leases are those of
// the pod's slots. A pod that asks by the local API can, because its program may ask.
func unfit(pod corev1.Pod, leases []*coordinationv1.Lease) string {
	said, ok := condition(pod)
	holds := slices.ContainsFunc(leases, func(l *coordinationv1.Lease) bool { return holderOf(l) == identityOf(pod) })
	switch {
	case !gated(pod):
		return "is not gated"
	case pod.DeletionTimestamp != nil:
		return "is being deleted"
	case holds:
		return "holds already"
	case pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed:
		return "has ended"
	case podspec.ServesLocal(&pod.Spec):
		return ""
	case !ok:
		return "does not wait yet: its agent has said nothing"
	case said.Reason == api.ReasonChildRunning:
		return "does not wait: " + said.Message
	}
	for i, c := range pod.Spec.Containers {
		if api.IsShim(c.Command) && !runs(pod.Status.ContainerStatuses, pod.Spec.Containers[i].Name) {
			return fmt.Sprintf("does not wait: its container %s does not run", c.Name)
		}
	}
	return ""
}

// runs reports whether the container runs. In a standby, the container runs its
// shim.
func runs(statuses []corev1.ContainerStatus, name string) bool {
	return slices.ContainsFunc(statuses, func(s corev1.ContainerStatus) bool { return s.Name == name && s.State.Running != nil })
}
