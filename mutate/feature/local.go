// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// maxLocalArgs bounds the arguments of the agent that serves the local API. The policy on gates has
// the same bound.
const maxLocalArgs = 4096

// judgeLocal refuses the local API in a pod that uses its node's network and has no volume for the
// socket. Through a port of the node, each process of the node could ask for the pod's slots. If
// the volume for the socket is not an emptyDir, the function also refuses the pod. The function
// also refuses a pod that has the readiness gate api.ReadyCondition. The agent of the local API
// never sets the pod condition of that gate, so the pod would never become Ready.
func judgeLocal(p *Pod) reason.Refusals {
	var refusals reason.Refusals
	if p.Request.Gate != api.GateProgram {
		return nil
	}
	switch at := slices.IndexFunc(p.Spec.Volumes, isLocalVolume); {
	case at >= 0 && p.Spec.Volumes[at].EmptyDir == nil:
		refusals.Add(reason.NameTaken, "the volume %q must be an emptyDir, because it is for the socket of the local API", api.LocalVolume)
	case at < 0 && p.Spec.HostNetwork:
		refusals.Add(reason.LocalAPIOnNode, "%s is set, and the pod sets hostNetwork", api.LocalAnnotation)
	}
	if n := len(strings.Join(sidecar{p}.localArgs(), " ")); n > maxLocalArgs {
		refusals.Add(reason.ContainerLimit, "the claims of %s and the names of the containers with shims have %d characters, which is more than %d", api.LocalAnnotation, n, maxLocalArgs)
	}
	if slices.ContainsFunc(p.Spec.ReadinessGates, isReady) {
		refusals.Add(reason.Leftover, "the pod has the readiness gate %s, which %s does not need", api.ReadyCondition, api.LocalAnnotation)
	}
	return refusals
}

// isReady reports whether the readiness gate names the pod condition that the agent sets.
func isReady(g corev1.PodReadinessGate) bool { return g.ConditionType == api.ReadyCondition }
