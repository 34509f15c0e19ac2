// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
)

// awaitedBy returns the names of the Leases in the conditions of a gated pod. Users can change
// the labels and annotations of a living pod, but not its spec. The names come from the spec, so
// enroll uses them in every namespace. A condition is no claim, so enroll creates no Lease for a
// condition, and sweeps a Lease that only conditions name.
func awaitedBy(pod *corev1.Pod) []string {
	if ended(pod) {
		return nil
	}
	return leasesOf(podspec.ConditionsOf(&pod.Spec))
}

// leasesOf returns the Leases of the conditions, except each Lease that no claim can name. A person
// may write the init container of the conditions by hand, with the name of a foreign Lease. Enroll
// must give no right on that Lease.
func leasesOf(conditions []api.Condition) (leases []string) {
	for _, c := range conditions {
		for _, lease := range c.Leases() {
			if api.IsSlot(lease) {
				leases = append(leases, lease)
			}
		}
	}
	return leases
}
