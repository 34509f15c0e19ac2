// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// warnOfOwnSlot warns if the pod may have to compete for another workload's slot, and no owner reference
// tells which one.
func warnOfOwnSlot(p *Pod) reason.Refusals {
	var warnings reason.Refusals
	if _, own := p.Request.Within(api.ScopeWorkload); !own || p.isTemplate() {
		return nil
	}
	switch {
	case p.ByHand:
		warnings.Add(reason.OwnSlot, "Job %q has %s, and names no CronJob as its owner", p.Workload.Name, api.InstantiateAnnotation)
	case p.Workload == api.Workload{Kind: "Pod", Name: p.Name} && len(p.OwnerReferences) > 0:
		warnings.Add(reason.OwnSlot, "no owner of the pod is its controller, as %s %q is not", p.OwnerReferences[0].Kind, p.OwnerReferences[0].Name)
	}
	return warnings
}
