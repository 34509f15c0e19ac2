// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// failures has the fields of a Job's spec that decide about failed pods.
type failures struct {
	PodFailurePolicy *batchv1.PodFailurePolicy `json:"podFailurePolicy"`
}

// judge warns of the first rule that matches a pod whose slot was lost or yielded, if this rule ends the
// Job or the pod's index for good. Such a pod has the condition DisruptionTarget, and a container with
// the exit code [api.ExitLost].
func (f failures) judge(request api.Request, pod *corev1.Pod) reason.Refusals {
	if f.PodFailurePolicy == nil || !request.Claims() || !request.Shims() || request.StartsOnly() || pod.Spec.RestartPolicy != corev1.RestartPolicyNever {
		return nil
	}
	var warnings reason.Refusals
	for i, rule := range f.PodFailurePolicy.Rules {
		if !meetsDisruption(rule) && !meetsLoss(rule.OnExitCodes) {
			continue
		}
		if rule.Action == batchv1.PodFailurePolicyActionFailJob || rule.Action == batchv1.PodFailurePolicyActionFailIndex {
			warnings.Add(reason.LossFails, "podFailurePolicy.rules[%d] has the action %s, and matches a pod whose slot was lost or yielded", i, string(rule.Action))
		}
		return warnings
	}
	return nil
}

// meetsDisruption reports whether the rule matches the condition that the agent adds.
func meetsDisruption(rule batchv1.PodFailurePolicyRule) bool {
	return slices.ContainsFunc(rule.OnPodConditions, func(c batchv1.PodFailurePolicyOnPodConditionsPattern) bool {
		return c.Type == api.DisruptionCondition && (c.Status == "" || c.Status == corev1.ConditionTrue)
	})
}

// meetsLoss reports whether the rule matches the exit code of a lost slot. The name of the container is
// not compared: a rule names the application's container, which has the gate.
func meetsLoss(codes *batchv1.PodFailurePolicyOnExitCodesRequirement) bool {
	if codes == nil {
		return false
	}
	return (codes.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn) == slices.Contains(codes.Values, api.ExitLost)
}
