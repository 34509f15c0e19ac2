// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// judgeWaits refuses a bounded wait in a pod that never ends, and in a container that the kubelet
// starts again after the wait. The function also refuses a gated init container that may skip. The
// kubelet would take the exit code 0 of a skip for success, and start the application. The function
// accepts a bounded wait in a gated init container: after the bound, the container ends with
// [api.ExitWaited], which is a failure. Then the pod's restartPolicy decides whether the
// container starts again.
func judgeWaits(p *Pod, at place) reason.Refusals {
	var refusals reason.Refusals
	c, request := p.container(at), p.Request
	if !p.getsShim(at) || !request.BoundsWaits() || api.Leashed(request) {
		return nil
	}
	key := api.WaitAtMostAnnotation
	skips := request.OnBusy == api.OnBusySkip
	if skips {
		key = api.OnBusyAnnotation
	}
	switch {
	case p.Spec.RestartPolicy == "" || p.Spec.RestartPolicy == corev1.RestartPolicyAlways:
		refusals.Add(reason.NeverEnds, "%s is set, and the pod's restartPolicy is Always", key)
	case skips && at.list != mainContainers:
		refusals.Add(reason.InitContainer, "%s is skip, and %s names the init container %q: the containers after it would start without its work",
			key, api.ContainersAnnotation, c.Name)
	case at.list == mainContainers && p.restarts(c) == corev1.ContainerRestartPolicyAlways:
		refusals.Add(reason.NeverEnds, "%s is set, and the kubelet always restarts container %q", key, c.Name)
	case skips && slices.ContainsFunc(c.RestartPolicyRules, restartsAfterSuccess):
		refusals.Add(reason.NeverEnds, "%s is skip, and a restart rule of container %q matches exit code 0", key, c.Name)
	}
	return refusals
}

// restartsAfterSuccess reports whether the rule restarts a container after exit code 0.
func restartsAfterSuccess(rule corev1.ContainerRestartRule) bool {
	if rule.ExitCodes == nil {
		return false
	}
	in := rule.ExitCodes.Operator == corev1.ContainerRestartRuleOnExitCodesOpIn
	return in == slices.Contains(rule.ExitCodes.Values, 0)
}

// jobOf returns the UID of the Job of a pod that may skip. For a pod without a Job, or a pod that
// may not skip, the result is empty.
func jobOf(f Facts) string {
	if f.Request.OnBusy != api.OnBusySkip {
		return ""
	}
	return podspec.Run(f.Pod)
}
