// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"fmt"
	"slices"

	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/json"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/patch"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// Keep returns the operations that put the marks of a gated pod back, and warnings. An
// update that replaces all labels or annotations leaves the marks out, and the policy on
// marks would refuse the update. A mark with another value stays, for the policy to refuse.
// An update may take a mark off a pod without a gate.
func Keep(raw, old []byte) ([]jsonpatch.Operation, reason.Refusals, error) {
	if len(old) == 0 {
		return nil, nil, nil
	}
	now, before := new(corev1.Pod), new(corev1.Pod)
	for pod, text := range map[*corev1.Pod][]byte{now: raw, before: old} {
		if err := json.Unmarshal(text, pod); err != nil {
			return nil, nil, fmt.Errorf("%w: %w", ErrMalformed, err)
		}
	}
	if !gated(before) {
		return nil, nil, nil
	}
	d, err := patch.Open(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	var warnings reason.Refusals
	keep := func(field, key string, before, now map[string]string) {
		was, had := before[key]
		if _, has := now[key]; had && !has {
			d.Set(was, "metadata", field, key)
			warnings.Add(reason.MarksKept, "%s", key)
		}
	}
	keep("labels", api.GatedLabel, before.Labels, now.Labels)
	keep("annotations", api.SlotsAnnotation, before.Annotations, now.Annotations)
	return d.Operations(), warnings, nil
}

// gated reports whether the pod has the agent, and a part that waits for the agent: a
// container, the kubelet, or the pod's readiness. The policy on marks knows the same.
func gated(pod *corev1.Pod) bool {
	agent := slices.IndexFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == api.AgentContainer })
	if agent < 0 {
		return false
	}
	is := pod.Spec.InitContainers[agent]
	sidecar := is.RestartPolicy != nil && *is.RestartPolicy == corev1.ContainerRestartPolicyAlways
	shows := slices.Contains(is.Args, "-gate="+string(api.GateReadiness)) &&
		slices.ContainsFunc(pod.Spec.ReadinessGates, func(g corev1.PodReadinessGate) bool { return g.ConditionType == api.ReadyCondition })
	held := slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == api.WaitContainer }) ||
		slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool { return len(c.Command) > 0 && c.Command[0] == api.AgentBinary })
	return sidecar && (shows || held)
}
