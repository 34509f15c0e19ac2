// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
	"github.com/metaparticle-io/metaparticle/enroll/step"
)

// sharded is a workload with shards, and the first of its pods by name; nil without a pod.
type sharded struct {
	step.Sharded
	first *corev1.Pod
}

// shardedGroups has the sharded workloads of a namespace, by the group of their Leases.
type shardedGroups map[string]*sharded

func (g shardedGroups) of(group string) *sharded {
	if g[group] == nil {
		g[group] = &sharded{}
	}
	return g[group]
}

// addPod adds a pod to the group of the Leases that the pod's slots name. The caller has
// checked that the pod's claim counts. The webhook and a policy make sure that only a
// workload's own pods name the workload's slots. So no other pod has an influence on the
// workload's number of shards.
func (g shardedGroups) addPod(pod *corev1.Pod) {
	if group, count := api.ShardsOf(slotsOf(pod)); count > 0 {
		of := g.of(group)
		of.Pods = append(of.Pods, step.ShardedPod{
			Count: count, Created: pod.CreationTimestamp.Time, Runs: runsShard(pod), Run: podspec.Run(pod),
			Stays: pod.DeletionTimestamp == nil, Orphaned: metav1.GetControllerOf(pod) == nil,
		})
		if of.first == nil || pod.Name < of.first.Name {
			of.first = pod
		}
	}
}

func (g shardedGroups) addWorkload(w workload, request api.Request) {
	if count := request.Shards(); count > 0 && w.group.Kind != "CronJob" { // each Job of a CronJob is a separate run
		g.of(api.ShardGroup(w.group)).Template = count
	}
}

// ShardsLackPods is the reason of the Event on a workload with more shards than pods that run.
const ShardsLackPods = "ShardsLackPods"

// shortageNotice is the time after which a shortage of pods causes an Event. Rollouts and
// evictions cause shorter shortages.
const shortageNotice = 5 * time.Minute

// notifyShortages writes an Event for each group that has lacked pods for shortageNotice. The result
// "lacking" is the number of shards without a running pod. The result "again" is the time until the
// next Event, or zero if no Event is to come.
func (n *spells) notifyShortages(events Recorder, seen *snapshot, now time.Time) (lacking int, again time.Duration) {
	var short []string
	missing, counts := map[string]int{}, map[string]int{}
	cached := step.Groups(seen.Leases)
	for _, group := range slices.Sorted(maps.Keys(seen.shards)) {
		of := seen.shards[group]
		count, run := of.Number(step.Decided(cached[group]))
		if missing[group] = of.Shortage(count, run); missing[group] > 0 {
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
	return s.shards[group].first
}
