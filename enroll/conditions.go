// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"cmp"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
)

// conditions are the Leases of the conditions in a namespace, by service account. With each
// Lease is the first pod or workload that has such a condition. A condition claims nothing, so
// enroll creates no Lease for it, and keeps none.
type conditions map[string]map[string]client.Object

func (c conditions) add(by client.Object, account string, of []api.Condition) {
	account = cmp.Or(account, "default")
	for _, one := range of {
		if !api.IsSlot(one.Lease) {
			// A person may write the container by hand. No claim can name this Lease, so
			// enroll gives no right on it.
			continue
		}
		if c[account] == nil {
			c[account] = map[string]client.Object{}
		}
		if c[account][one.Lease] == nil {
			c[account][one.Lease] = by
		}
	}
}

// addPod adds the conditions of a gated pod. They come from the spec, because users can
// change the labels and annotations of a living pod. So they count in each namespace.
func (c conditions) addPod(pod *corev1.Pod) {
	if !ended(pod) {
		c.add(pod, pod.Spec.ServiceAccountName, podspec.ConditionsOf(&pod.Spec))
	}
}
