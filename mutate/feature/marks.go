// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"strings"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/patch"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// slots returns the names of the slots that the pod claims.
func (p *Pod) slots() []string { return p.Request.Slots(p.Workload) }

// judgeMarks refuses a pod whose slots have no name yet. The function also refuses a copy of
// another workload's pod, because the copy's annotation metaparticle.io/slots names that
// workload's slots. A pod template has neither problem.
func judgeMarks(p *Pod) reason.Refusals {
	var refusals reason.Refusals
	if p.isTemplate() || !p.Request.Claims() {
		return nil
	}
	if claim, ok := p.Request.Within(api.ScopeWorkload); ok && p.Workload.Name == "" {
		refusals.Add(reason.PodWithoutName, "the pod claims %s", claim.Kind.Key)
	}
	if of := p.copied(); of != "" {
		refusals.Add(reason.Leftover, "the pod has no controller, and was gated for %s, whose holder it would run beside (without the annotation %s it is a group of its own)", of, api.SlotsAnnotation)
	}
	return refusals
}

// patchMarks writes the marks by which enroll and the policies recognize a gated pod. The
// function also removes the labels and the deletion cost that only a holder's pod gets. A new
// pod with these labels or this cost is a copy of the holder's pod, and holds no slot.
func patchMarks(p *Pod, d *patch.Document) {
	if p.Request.Claims() {
		d.Set(strings.Join(p.Request.Marks(p.Workload), ","), "metadata", "annotations", api.SlotsAnnotation)
		d.Set(api.Gated, "metadata", "labels", api.GatedLabel)
	} else {
		d.Remove("metadata", "annotations", api.SlotsAnnotation)
		d.Set(api.GatedAfter, "metadata", "labels", api.GatedLabel)
	}
	d.Remove("metadata", "labels", api.RoleLabel)
	d.Remove("metadata", "labels", api.ShardLabel)
	if p.Annotations[api.DeletionCostAnnotation] == api.HolderDeletionCost {
		d.Remove("metadata", "annotations", api.DeletionCostAnnotation)
	}
}

// RemoveMarks removes the marks of a pod that claims nothing, because enroll grants rights
// by marks.
func RemoveMarks(d *patch.Document) {
	d.Remove("metadata", "annotations", api.SlotsAnnotation)
	d.Remove("metadata", "labels", api.GatedLabel)
}
