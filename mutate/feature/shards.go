// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// judgeShards refuses shards in a pod that ends, because a shard is a task for life. The
// function also refuses shards in a pod without a controller: no other pod would have the
// other shards.
func judgeShards(p *Pod) reason.Refusals {
	var refusals reason.Refusals
	if p.Request.Shards() == 0 {
		return nil
	}
	switch policy := p.Spec.RestartPolicy; {
	case p.Workload.Kind == "Job", p.Workload.Kind == "CronJob":
		refusals.Add(reason.ShardsEnd, "%s is in a pod of a %s", api.ShardsAnnotation, p.Workload.Kind)
	case policy != "" && policy != corev1.RestartPolicyAlways:
		refusals.Add(reason.ShardsEnd, "%s is set, and the pod's restartPolicy is %s", api.ShardsAnnotation, policy)
	case p.Workload.Kind == "Pod":
		refusals.Add(reason.ShardsAlone, "the pod claims %s", api.ShardsAnnotation)
	}
	return refusals
}

// declaresPorts reports whether a gated container of the pod declares a port.
func declaresPorts(p *Pod) bool {
	return slices.ContainsFunc(p.gated, func(i int) bool { return len(p.Spec.Containers[i].Ports) > 0 })
}

// ShardsNeedNoPorts reports whether the standbys of a workload are Ready because its pods
// have shards, and declare no ports. If no annotation names the gated containers, each
// container of the template counts.
func ShardsNeedNoPorts(template *corev1.PodSpec, request api.Request) bool {
	return request.Shards() > 0 && request.Readiness == "" && !slices.ContainsFunc(template.Containers, func(c corev1.Container) bool {
		return len(c.Ports) > 0 && (len(request.Containers) == 0 || slices.Contains(request.Containers, c.Name))
	})
}
