// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// onLoss returns the action of a container's shim after a lost slot. The kubelet does not
// restart a container whose restart policy is Never. So the shim of such a container must not start
// the child again.
func (p *Pod) onLoss(c *corev1.Container) api.OnLoss {
	switch asked := p.Request.OnLoss; {
	case p.restarts(c) == corev1.ContainerRestartPolicyNever:
		return api.OnLossEnd
	case api.Leashed(p.Request):
		return api.OnLossRestart
	case asked == "":
		return api.OnLossStandby
	default:
		return asked
	}
}

// restarts returns the restart policy of a container: its own, or else the pod's.
func (p *Pod) restarts(c *corev1.Container) corev1.ContainerRestartPolicy {
	if c.RestartPolicy != nil {
		return *c.RestartPolicy
	}
	return cmp.Or(corev1.ContainerRestartPolicy(p.Spec.RestartPolicy), corev1.ContainerRestartPolicyAlways)
}

// judgeRules refuses a restart rule that matches the shim's exit code after a lost slot. Such a
// rule would take that exit for an exit of the application. The function accepts a matching rule
// only if the rule has the operator NotIn and restarts the container.
func judgeRules(p *Pod, at place) reason.Refusals {
	var refusals reason.Refusals
	c := p.container(at)
	if !p.getsShim(at) || p.onLoss(c) == api.OnLossStandby {
		return nil
	}
	for i, rule := range c.RestartPolicyRules {
		if rule.ExitCodes == nil {
			continue
		}
		named := slices.Contains(rule.ExitCodes.Values, api.ExitLost)
		in := rule.ExitCodes.Operator == corev1.ContainerRestartRuleOnExitCodesOpIn
		if in && named || !in && !named && rule.Action != corev1.ContainerRestartRuleActionRestart {
			refusals.Add(reason.RestartRule, "container %q, restartPolicyRules[%d], matches exit code %d", c.Name, i, api.ExitLost)
		}
	}
	return refusals
}

// outlivesLoss reports whether a container of a pod runs again after a lost slot, by its own restart
// policy or by a rule.
func (p *Pod) outlivesLoss(at place) bool {
	c := p.container(at)
	return p.restarts(c) != corev1.ContainerRestartPolicyNever || slices.ContainsFunc(c.RestartPolicyRules, func(r corev1.ContainerRestartRule) bool {
		return r.ExitCodes != nil && (r.ExitCodes.Operator == corev1.ContainerRestartRuleOnExitCodesOpIn) == slices.Contains(r.ExitCodes.Values, api.ExitLost)
	})
}
