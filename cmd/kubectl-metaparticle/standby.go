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
	"github.com/metaparticle-io/metaparticle/console/view"
)

// unfit returns the reason why the pod cannot hold next. The text is empty if the pod can hold
// next. The Leases are those of the pod's slots. A pod with the local API can hold next, because
// its program may bid for the slot.
func unfit(pod corev1.Pod, leases []*coordinationv1.Lease) string {
	said, ok := view.Condition(pod)
	holds := slices.ContainsFunc(leases, func(l *coordinationv1.Lease) bool { return view.HolderOf(l) == view.IdentityOf(pod) })
	switch {
	case !view.Gated(pod):
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

// runs reports whether the container runs. If a standby's container runs, the shim in this
// container waits.
func runs(statuses []corev1.ContainerStatus, name string) bool {
	return slices.ContainsFunc(statuses, func(s corev1.ContainerStatus) bool { return s.Name == name && s.State.Running != nil })
}
