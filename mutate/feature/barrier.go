// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"encoding/json"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// judgeBarrier refuses a barrier in a pod that belongs to no Job, because a barrier opens once, for
// the pods of one Job. The function also refuses a barrier for more pods than the Job runs at
// once, because the barrier would never open. The function also refuses a copied pod whose
// injected container waits at a barrier that the copy no longer has.
func judgeBarrier(p *Pod) reason.Refusals {
	var refusals reason.Refusals
	if p.Request.Barrier.Size == 0 && slices.ContainsFunc(p.Spec.InitContainers, waitsAtBarrier) {
		refusals.Add(reason.Leftover, "init container %q waits at a barrier", api.BarrierContainer)
	}
	if size := p.Request.Barrier.Size; size > 0 {
		refusals = append(refusals, judgeSize(p, api.BarrierAnnotation, "is set", size)...)
	}
	for _, b := range api.BarriersOf(p.Request.Claimed) {
		refusals = append(refusals, judgeSize(p, api.LocalAnnotation+": barrier/"+b.String(), "is declared", b.Size)...)
	}
	return refusals
}

// judgeSize refuses a barrier in a pod that belongs to no Job, and a barrier for more pods than the
// Job runs at once. In the messages, the argument "name" names the barrier, and the argument
// "has" says that the pod has the barrier.
func judgeSize(p *Pod, name, has string, size int) reason.Refusals {
	var refusals reason.Refusals
	switch {
	case !p.ofJob() && p.Workload.Kind == "Pod":
		refusals.Add(reason.BarrierNeedsJob, "%s %s, and the pod has no controller", name, has)
	case !p.ofJob():
		refusals.Add(reason.BarrierNeedsJob, "%s is in a pod of a %s", name, p.Workload.Kind)
	case p.atOnce() < size:
		refusals.Add(reason.BarrierNeverOpens, "%s needs %d pods, and the Job runs %d at once", name, size, p.atOnce())
	}
	return refusals
}

// waitsAtBarrier reports whether the container has the name of the injected container for a
// barrier.
func waitsAtBarrier(c corev1.Container) bool { return c.Name == api.BarrierContainer }

// ofJob reports whether a Job makes the pod, or the pods of the template.
func (f Facts) ofJob() bool {
	if f.isTemplate() {
		return f.Workload.Owner().Runs
	}
	return f.Run.UID != ""
}

// atOnce returns the number of pods that the Job runs at once.
func (f Facts) atOnce() int {
	if !f.isTemplate() {
		return f.Run.AtOnce
	}
	job := f.Path[:len(f.Path)-1]
	return PodsAtOnce(f.count(job, "parallelism"), f.count(job, "completions"))
}

// count returns the number in a field of the object at a path. The result is nil if the field is
// absent or is not a number.
func (f Facts) count(of []any, field string) *int32 {
	text, err := json.Marshal(f.Document.Get(append(slices.Clone(of), field)...))
	var n *int32
	if err != nil || json.Unmarshal(text, &n) != nil {
		return nil
	}
	return n
}

// PodsAtOnce returns the number of pods that a Job runs at once, by the fields of its spec.
func PodsAtOnce(parallelism, completions *int32) int {
	most := ptr.Deref(parallelism, 1)
	return int(min(most, ptr.Deref(completions, most)))
}
