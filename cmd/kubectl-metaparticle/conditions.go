// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

// conditionLines returns a line for each condition. The Lease alone does not show whether its
// holder still lives; the pod's own container waits for a renewal.
func conditionLines(e *explainer) []string {
	var lines []string
	for _, c := range conditionsOf(e) {
		lease, read := e.leases[c.Lease]
		if !read {
			continue // reported in the section "not readable"
		}
		lines = append(lines, c.String()+"\t"+leaseState(c, lease))
	}
	return lines
}

// leaseState returns the words about a condition. The Lease may be nil.
func leaseState(c api.Condition, lease *coordinationv1.Lease) string {
	switch {
	case lease == nil:
		return "not met: no Lease, so no pod has claimed it yet"
	case c.Key != "" && api.Done(lease.Annotations[api.DoneAnnotation]).Has(c.Key):
		return "met: the key is done"
	case c.Key != "":
		return "not met: the key is not done"
	case holderOf(lease) == "":
		return "not met: no pod holds"
	case lease.Annotations[api.ServingAnnotation] == "":
		return "not met: the application of " + api.PodOf(holderOf(lease)) + " does not serve"
	default:
		return "met with the next renewal: " + api.PodOf(holderOf(lease)) + " serves"
	}
}

// conditionState returns the words about a pod that claims nothing and has conditions.
func conditionState(pod corev1.Pod) string {
	for _, s := range pod.Status.InitContainerStatuses {
		if s.Name == api.AfterContainer && s.State.Terminated != nil && s.State.Terminated.ExitCode == 0 {
			return "its conditions were met"
		}
	}
	return "waits for its conditions"
}
