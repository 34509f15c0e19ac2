// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

// variablesOf returns the Variables of a gated pod, from the annotation that the webhook wrote.
func variablesOf(pod *corev1.Pod) (names []string) {
	for _, mark := range slotsOf(pod) {
		if name, ok := api.VariableOf(mark); ok {
			names = append(names, name)
		}
	}
	return names
}
