// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"cmp"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

// ShardsLackPods is the reason of the Event on a workload with more shards than pods that run.
const ShardsLackPods = "ShardsLackPods"

// shortageNotice is the time after which a shortage of pods causes an Event. Rollouts and
// evictions cause shorter shortages.
const shortageNotice = 5 * time.Minute

// shortage returns how many shards have no running pod. The result is zero for a workload without
// any pod, because a person has scaled that workload to 0. The result is also zero for a run:
// the pods of a Job take the shards one after the other.
func (s *sharded) shortage(count int, run string) int {
	running := 0
	for _, p := range s.pods {
		if p.runs && p.count == count {
			running++
		}
	}
	if len(s.pods) == 0 || run != "" {
		return 0
	}
	return max(count-running, 0)
}

// notifyShortages writes an Event for each group that has lacked pods for shortageNotice. The result
// "lacking" is the number of shards without a running pod. The result "again" is the time until the
// next Event, or zero if no Event is to come.
func (n *spells) notifyShortages(events Recorder, seen *snapshot, now time.Time) (lacking int, again time.Duration) {
	var short []string
	missing, counts := map[string]int{}, map[string]int{}
	cached := byGroup(seen.leases)
	for _, group := range slices.Sorted(maps.Keys(seen.shards)) {
		of := seen.shards[group]
		count, run := of.number(decided(cached[group]))
		if missing[group] = of.shortage(count, run); missing[group] > 0 {
			short, counts[group] = append(short, group), count
			lacking += missing[group]
		}
	}
	due, again := n.observe(seen.namespace, short, shortageNotice, now)
	if events == nil {
		return lacking, again
	}
	for _, group := range due {
		events.Eventf(seen.shardedObject(group), nil, corev1.EventTypeWarning, ShardsLackPods, "Enroll",
			"Only %d of %d shards can run, because no more pods of the workload run. Scale the workload to %d pods, or make %s smaller.",
			counts[group]-missing[group], counts[group], counts[group], api.ShardsAnnotation)
	}
	return lacking, again
}

// shardedObject returns the workload of a group, or a pod of the group if enroll does not know the
// workload.
func (s *snapshot) shardedObject(group string) client.Object {
	for _, w := range s.workloads {
		if api.ShardGroup(w.group) == group {
			return w.object
		}
	}
	pods := s.shards[group].pods
	return slices.MinFunc(pods, func(a, b shardedPod) int { return cmp.Compare(a.object.Name, b.object.Name) }).object
}
