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

// judgeAfter refuses a condition that only the pod itself could meet by its own claim, because
// the pod would wait for ever. The function also refuses a copied pod whose injected container
// waits for conditions that the copy no longer has.
func judgeAfter(p *Pod) reason.Refusals {
	var refusals reason.Refusals
	workload := p.Workload
	if p.isTemplate() {
		workload.Name, _ = p.Document.Get("metadata", "name").(string)
	}
	if c, own := p.Request.MetBySelf(p.Request.Slots(workload), cmp.Or(p.onceKey(), p.run())); own {
		refusals.Add(reason.AfterItself, "%s names %s, which the pod itself claims", api.AfterAnnotation, c)
	}
	if len(p.Request.After) == 0 && slices.ContainsFunc(p.Spec.InitContainers, waitsForConditions) {
		refusals.Add(reason.Leftover, "init container %q waits for conditions", api.AfterContainer)
	}
	return refusals
}

// waitsForConditions reports whether the container has the name of the injected container for
// conditions.
func waitsForConditions(c corev1.Container) bool { return c.Name == api.AfterContainer }
