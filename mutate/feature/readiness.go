// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/patch"
)

// patchReadiness makes the pod's readiness depend on the agent's condition. After a once
// claim's success the application runs in every pod, so the pod's readiness stays as it was.
// With the local API the application runs in every pod, too.
func patchReadiness(p *Pod, d *patch.Document) {
	if _, once := p.Request.Once(); once || p.Request.Gate == api.GateProgram {
		return
	}
	d.Ensure("conditionType", corev1.PodReadinessGate{ConditionType: api.ReadyCondition}, "spec", "readinessGates")
}
