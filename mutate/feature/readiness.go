// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/patch"
)

// patchReadiness makes the pod's readiness depend on the pod condition that the agent sets. After
// the success of a once claim, and with the local API, the application runs in every pod. So
// the function changes no pod with a once claim or the local API.
func patchReadiness(p *Pod, d *patch.Document) {
	if _, once := p.Request.Once(); once || p.Request.Gate == api.GateProgram {
		return
	}
	d.Ensure("conditionType", corev1.PodReadinessGate{ConditionType: api.ReadyCondition}, "spec", "readinessGates")
}
