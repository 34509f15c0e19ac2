// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"slices"
	"strconv"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// judgeShards refuses shards in a pod that ends but belongs to no Job, because only a Job can
// be the run of a shard. The function also refuses shards in a pod without a controller: no
// other pod would have the other shards.
func judgeShards(p *Pod) reason.Refusals {
	var refusals reason.Refusals
	if p.Request.Shards() == 0 {
		return nil
	}
	switch policy := p.Spec.RestartPolicy; {
	case p.ofJob():
		return judgeRun(p)
	case policy != "" && policy != corev1.RestartPolicyAlways:
		refusals.Add(reason.ShardsEnd, "%s is set, and the pod's restartPolicy is %s", api.ShardsAnnotation, policy)
	case p.Workload.Kind == "Pod":
		refusals.Add(reason.ShardsAlone, "the pod claims %s", api.ShardsAnnotation)
	}
	return refusals
}

// run returns the UID of the Job of a pod with shards. For a template of such pods, the result is a
// placeholder. For any other pod, the result is empty.
func (f Facts) run() string {
	switch {
	case f.Request.Shards() == 0 || !f.ofJob():
		return ""
	case f.isTemplate():
		return "RUN"
	}
	return f.Run.UID
}

// judgeRun refuses a pod if its Job could end before all shards are done. A shard is done when
// one container has succeeded, so the pod must have exactly one gated container. The kubelet must
// not start this container again after its success.
func judgeRun(p *Pod) reason.Refusals {
	var refusals reason.Refusals
	places := p.places()
	if len(places) != 1 || places[0].list != mainContainers {
		refusals.Add(reason.OnceContainers, "%s in a Job is for one main container, and the pod gates %d containers, %d of them init containers",
			api.ShardsAnnotation, len(places), len(p.inits))
		return refusals
	}
	c := p.container(places[0])
	if p.restarts(c) == corev1.ContainerRestartPolicyAlways || slices.ContainsFunc(c.RestartPolicyRules, restartsAfterSuccess) {
		refusals.Add(reason.OnceRestarts, "%s is set in a Job, and the kubelet restarts container %q after its success", api.ShardsAnnotation, c.Name)
	}
	if p.Request.OnBusy == api.OnBusySkip {
		refusals.Add(reason.ShardsLeft, "%s is skip", api.OnBusyAnnotation)
	}
	completions, shards := p.completions(), p.Request.Shards()
	index, ok := p.Annotations[batchv1.JobCompletionIndexAnnotation]
	number, err := strconv.Atoi(index)
	switch {
	case completions < 0:
		refusals.Add(reason.ShardsLeft, "the Job has no completions, and %s is %d", api.ShardsAnnotation, shards)
	case p.indexed() && completions != shards, completions < shards:
		refusals.Add(reason.ShardsLeft, "the Job has %d completions, and %s is %d", completions, api.ShardsAnnotation, shards)
	case ok && p.indexed() && (err != nil || number < 0 || number >= shards):
		refusals.Add(reason.ShardsLeft, "the pod's index is %q, and %s is %d", index, api.ShardsAnnotation, shards)
	}
	return refusals
}

// completions returns the completions of the pod's Job; a negative number if the Job has none.
func (f Facts) completions() int {
	completions := f.Run.Completions
	if f.isTemplate() {
		completions = f.count(f.Path[:len(f.Path)-1], "completions")
	}
	return int(ptr.Deref(completions, -1))
}

// declaresPorts reports whether a gated container of the pod declares a port.
func declaresPorts(p *Pod) bool {
	return slices.ContainsFunc(p.gated, func(i int) bool { return len(p.Spec.Containers[i].Ports) > 0 })
}

// ShardsNeedNoPorts reports whether the standbys of a workload are Ready because its pods
// have shards, and declare no ports. If no annotation names the gated containers, no
// container of the template may declare a port.
func ShardsNeedNoPorts(template *corev1.PodSpec, request api.Request) bool {
	return request.Shards() > 0 && request.Readiness == "" && !slices.ContainsFunc(template.Containers, func(c corev1.Container) bool {
		return len(c.Ports) > 0 && (len(request.Containers) == 0 || slices.Contains(request.Containers, c.Name))
	})
}
