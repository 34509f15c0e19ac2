// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/patch"
)

// patchReadiness makes the pod's readiness depend on the agent's condition. With a once
// claim, after its success, and with the local API, the application runs in every pod. So
// the function does not change the readiness of such a pod.
func patchReadiness(p *Pod, d *patch.Document) {
	if _, once := p.Request.Once(); once || p.Request.Gate == api.GateProgram {
		return
	}
	d.Ensure("conditionType", corev1.PodReadinessGate{ConditionType: api.ReadyCondition}, "spec", "readinessGates")
}
