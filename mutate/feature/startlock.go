// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"slices"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// judgeStartLock refuses a start lock of a container with neither a readiness nor a startup probe.
// Only such a probe shows the end of the start. The function also refuses gated init containers:
// the pod would hold the start lock while they run, and until the application is ready.
func judgeStartLock(p *Pod) reason.Refusals {
	var refusals reason.Refusals
	if !p.Request.StartsInTurn() {
		return nil
	}
	for _, i := range p.inits {
		refusals.Add(reason.InitContainer, "%s names the init container %q: with %s only main containers wait",
			api.ContainersAnnotation, p.Spec.InitContainers[i].Name, api.StartLockAnnotation)
	}
	for _, i := range p.gated {
		c := &p.Spec.Containers[i]
		probed := slices.ContainsFunc(p.probes, func(its carriedProbe) bool {
			return its.container == c && its.kind.name != api.LivenessProbe
		})
		if !probed {
			refusals.Add(reason.NoProbe, "%s is set, and container %q has neither a readiness nor a startup probe", api.StartLockAnnotation, c.Name)
		}
	}
	return refusals
}
