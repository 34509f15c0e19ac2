// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package podspec recognizes the parts that the webhook puts into the spec of a
// pod.
//
// The API server lets nobody change these parts of an existing pod. So an answer of the
// package is valid as long as the pod exists. The package ignores labels and annotations,
// because a person may write them. An answer does not prove that the parts work, or that
// the webhook wrote them.
//
// Only [Run] reads something else: the pod's owner references, which a person can change.
//
// The policy on marks gives the same answers as [HasGate], in the API server's own process. The
// tests of the policy and of [HasGate] both use testdata/pods.yaml.
package podspec

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

// HasGate reports whether the pod has the agent as a sidecar, and a part that waits for
// the agent. That part is a shim in any container, the init container of the gate "pod",
// or the pod's readiness gate. The agent of the local API needs no other part, because the
// program itself asks for its slots.
//
// HasGate does not accept an ordinary init container as the agent. Such a container ends
// before the kubelet starts the application, so no agent would renew.
func HasGate(spec *corev1.PodSpec) bool {
	if !slices.ContainsFunc(spec.InitContainers, isAgent) {
		return false
	}
	return slices.ContainsFunc(spec.InitContainers, waits) || showsReadiness(spec) || ServesLocal(spec) ||
		slices.ContainsFunc(slices.Concat(spec.InitContainers, spec.Containers), isShim)
}

// ServesLocal reports whether the pod has the agent that serves the local API.
func ServesLocal(spec *corev1.PodSpec) bool { return slices.ContainsFunc(spec.InitContainers, isLocal) }

// Leashed reports whether shims kill the programs of the pod when a hold of the local API is lost.
func Leashed(spec *corev1.PodSpec) bool {
	return slices.ContainsFunc(spec.InitContainers, func(c corev1.Container) bool {
		return isLocal(c) && len(api.RecallLocalArgs(c.Args).Containers) > 0
	})
}

// isLocal reports whether the container is the agent that serves the local API.
func isLocal(c corev1.Container) bool { return isAgent(c) && api.IsLocal(c.Args) }

// ConditionsOf returns the conditions for which the pod waits in the container
// [api.AfterContainer].
func ConditionsOf(spec *corev1.PodSpec) []api.Condition {
	i := slices.IndexFunc(spec.InitContainers, isAfter)
	if i < 0 {
		return nil
	}
	return api.RecallConditions(spec.InitContainers[i].Args)
}

// isAfter reports whether the container waits for conditions. An init container with a
// restartPolicy would not hold back the containers behind it.
func isAfter(c corev1.Container) bool {
	return c.Name == api.AfterContainer && len(c.Command) == 0 && c.RestartPolicy == nil
}

// BarriersOf returns all barriers at which the pod can arrive: by the container
// [api.BarrierContainer], and by the local API.
func BarriersOf(spec *corev1.PodSpec) (all []api.BarrierArgs) {
	if b := BarrierOf(spec); len(b.Leases()) > 0 {
		all = append(all, b)
	}
	if i := slices.IndexFunc(spec.InitContainers, isLocal); i >= 0 {
		all = append(all, api.RecallLocalArgs(spec.InitContainers[i].Args).Barriers()...)
	}
	return all
}

// BarrierOf returns the barrier at which the pod waits, in the container [api.BarrierContainer].
// For a pod without that container, the result has no Leases.
func BarrierOf(spec *corev1.PodSpec) api.BarrierArgs {
	i := slices.IndexFunc(spec.InitContainers, isBarrier)
	if i < 0 {
		return api.BarrierArgs{}
	}
	return api.RecallBarrier(spec.InitContainers[i].Args)
}

// isBarrier reports whether the container waits at a barrier. An init container with a
// restartPolicy would not hold back the containers behind it.
func isBarrier(c corev1.Container) bool {
	return c.Name == api.BarrierContainer && len(c.Command) == 0 && c.RestartPolicy == nil
}

func isAgent(c corev1.Container) bool {
	return c.Name == api.AgentContainer && c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

func isShim(c corev1.Container) bool { return api.IsShim(c.Command) }

func waits(c corev1.Container) bool { return c.Name == api.WaitContainer }

// showsReadiness reports whether the pod has the gate "readiness".
func showsReadiness(spec *corev1.PodSpec) bool {
	return slices.ContainsFunc(spec.InitContainers, toldReadiness) && slices.ContainsFunc(spec.ReadinessGates, isReady)
}

func toldReadiness(c corev1.Container) bool {
	return c.Name == api.AgentContainer && slices.Contains(c.Args, api.ReadinessGateArg)
}

func isReady(g corev1.PodReadinessGate) bool { return g.ConditionType == api.ReadyCondition }

// Strip returns a spec with only the fields that [HasGate], [ConditionsOf], [BarriersOf] and [Unforwarded] read,
// and the service account. Package enroll keeps only stripped specs in memory, because there may be
// ten thousand pods.
func Strip(spec *corev1.PodSpec) corev1.PodSpec {
	stripped := corev1.PodSpec{
		ServiceAccountName: spec.ServiceAccountName,
		InitContainers:     strip(spec.InitContainers),
		Containers:         strip(spec.Containers),
		ReadinessGates:     stripGates(spec.ReadinessGates),
	}
	stripPorts(&stripped, spec)
	return stripped
}

// All stripped containers share these values, which no caller may change.
var (
	always        = corev1.ContainerRestartPolicyAlways
	shimCommand   = []string{api.ShimProgram, api.ExecRole}
	readinessArgs = []string{api.ReadinessGateArg}
	localArgs     = []string{api.LocalRole}
)

// stripGates returns only our readiness gate.
func stripGates(gates []corev1.PodReadinessGate) []corev1.PodReadinessGate {
	if !slices.ContainsFunc(gates, isReady) {
		return nil
	}
	return []corev1.PodReadinessGate{{ConditionType: api.ReadyCondition}}
}

// strip returns the injected containers, and the first container with a shim. A pod may have
// thousands of other containers.
func strip(containers []corev1.Container) (kept []corev1.Container) {
	shim := slices.IndexFunc(containers, isShim)
	for i, c := range containers {
		if i == shim || slices.Contains(api.Injected, c.Name) {
			kept = append(kept, stripContainer(c))
		}
	}
	return kept
}

func stripContainer(c corev1.Container) corev1.Container {
	kept := corev1.Container{Name: c.Name}
	if isAgent(c) {
		kept.RestartPolicy = &always
		kept.Args = stripForwarding(c.Args)
	}
	if isShim(c) {
		kept.Command = shimCommand
	}
	if toldReadiness(c) {
		kept.Args = readinessArgs
	}
	if isLocal(c) {
		kept.Args = stripLocal(c.Args)
	}
	if isBarrier(c) {
		if barrier := api.RecallBarrier(c.Args); len(barrier.Leases()) > 0 {
			barrier.Credentials = api.CredentialsPath
			kept.Args = barrier.Args()
		}
	}
	if isAfter(c) {
		if conditions := api.RecallConditions(c.Args); len(conditions) > 0 {
			kept.Args = api.ConditionArgs{Conditions: conditions, Credentials: api.CredentialsPath}.Args()
		}
	}
	return kept
}

// stripLocal returns the arguments of the agent that serves the local API. Of the claims, the
// result has only the barriers.
func stripLocal(args []string) []string {
	a := api.RecallLocalArgs(args)
	a.Claims = slices.DeleteFunc(a.Claims, func(c api.Claim) bool { return c.Kind != api.Arrivals })
	if barriers := a.Barriers(); len(barriers) == 0 || len(barriers[0].Leases()) == 0 {
		return localArgs
	}
	kept := api.DefaultLocalArgs()
	kept.Claims, kept.Run, kept.LeaseDuration = a.Claims, a.Run, a.LeaseDuration
	return kept.Args()
}
