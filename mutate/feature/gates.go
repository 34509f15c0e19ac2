// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// judgeGate refuses the gate "pod" if the pod or its cluster cannot restart all containers of the
// pod together. That gate needs such a restart after a lost slot. The function also refuses the
// init container of the gate "pod" in a pod with another gate.
func judgeGate(p *Pod) reason.Refusals {
	var refusals reason.Refusals
	if p.Request.Gate != api.GatePod {
		switch {
		case hasInjected(p.Pod, api.WaitContainer):
			refusals.Add(reason.Leftover, "init container %q waits for the gate %q", api.WaitContainer, api.GatePod)
		case hasInjected(p.Pod, api.TurnContainer):
			refusals.Add(reason.Leftover, "init container %q is for the gate %q", api.TurnContainer, api.GatePod)
		}
		return refusals
	}
	switch {
	case p.Kubernetes == 0:
		refusals.Add(reason.KubernetesTooOld, "%s is %q, and the cluster's version is not known", api.GateAnnotation, api.GatePod)
	case p.Kubernetes < RestartsAll:
		refusals.Add(reason.KubernetesTooOld, "%s is %q, and the cluster is 1.%d", api.GateAnnotation, api.GatePod, p.Kubernetes)
	}
	if p.Spec.RestartPolicy == corev1.RestartPolicyNever {
		refusals.Add(reason.NeverRestarted, "%s is %q, and the pod's restartPolicy is Never", api.GateAnnotation, api.GatePod)
	}
	for _, c := range p.Spec.Containers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyNever {
			refusals.Add(reason.NeverRestarted, "%s is %q, and the restartPolicy of container %q is Never", api.GateAnnotation, api.GatePod, c.Name)
		}
	}
	return refusals
}
