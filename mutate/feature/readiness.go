// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/patch"
)

// patchReadiness makes the pod's readiness depend on the pod condition that the agent sets. The
// function changes no pod with a once claim: after the work of the claim is done, the application
// runs in every such pod. The function changes no pod with the local API either, because the
// application runs in every such pod, too.
func patchReadiness(p *Pod, d *patch.Document) {
	if _, once := p.Request.Once(); once || p.Request.Gate == api.GateProgram {
		return
	}
	d.Ensure("conditionType", corev1.PodReadinessGate{ConditionType: api.ReadyCondition}, "spec", "readinessGates")
}
