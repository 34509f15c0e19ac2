// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

// judgeRestartRules refuses rules that would take the end of a container after
// a lost slot for an end of the application: that name its code, or restart
// what is not gated. A rule that restarts the container on any other code than
// some only does what a loss is to come to.
func judgeRestartRules(pod *corev1.Pod, c corev1.Container, refusals *Refusals) {
	if onLoss(pod, c) == api.OnLossStandby {
		return
	}
	for i, rule := range c.RestartPolicyRules {
		if rule.ExitCodes == nil {
			continue
		}
		named := slices.Contains(rule.ExitCodes.Values, api.ExitLost)
		in := rule.ExitCodes.Operator == corev1.ContainerRestartRuleOnExitCodesOpIn
		if in && named || !in && !named && rule.Action != corev1.ContainerRestartRuleActionRestart {
			refusals.add(RestartRule, "container %q, restartPolicyRules[%d], matches exit code %d", c.Name, i, api.ExitLost)
		}
	}
}
