// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"slices"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// judgeNames refuses a pod whose own container or volume has the name of an injected
// container or volume.
func judgeNames(p *Pod) reason.Refusals {
	var refusals reason.Refusals
	for _, c := range p.Spec.Containers {
		if slices.Contains(api.Injected, c.Name) {
			refusals.Add(reason.NameTaken, "a container is named %q", c.Name)
		}
	}
	for _, c := range p.Spec.InitContainers {
		if slices.Contains(api.Injected, c.Name) && !passed(p.Pod) {
			refusals.Add(reason.NameTaken, "an init container is named %q", c.Name)
		}
	}
	for _, v := range p.Spec.Volumes {
		injected := passed(p.Pod) && (v.EmptyDir != nil || v.Projected != nil)
		if (v.Name == api.Volume || v.Name == api.CredentialsVolume) && !injected {
			refusals.Add(reason.NameTaken, "a volume is named %q", v.Name)
		}
	}
	return refusals
}
