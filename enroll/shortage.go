// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"cmp"
	"maps"
	"slices"
	"sync"
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

// shortages remembers the workloads with fewer running pods than shards. The keys are the
// namespace, and the group of the workload's Leases.
type shortages struct {
	mu  sync.Mutex
	all map[string]map[string]shortage
}

// shortage has the instant since which one workload lacks pods, and whether an Event has reported
// the lack.
type shortage struct {
	since    time.Time
	notified bool
}

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

// observe writes an Event for each group that has lacked pods for shortageNotice. The result
// "lacking" is the number of shards without a running pod. The result "again" is the time until the
// next Event, or zero if no Event is to come.
func (n *shortages) observe(events Recorder, seen *snapshot, now time.Time) (lacking int, again time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	before := n.all[seen.namespace]
	after := map[string]shortage{}
	cached := byGroup(seen.leases)
	for _, group := range slices.Sorted(maps.Keys(seen.shards)) {
		of := seen.shards[group]
		count, run := of.number(decided(cached[group]))
		missing := of.shortage(count, run)
		if missing == 0 {
			continue
		}
		lacking += missing
		s, known := before[group]
		if !known {
			s.since = now
		}
		if left := s.since.Add(shortageNotice).Sub(now); left > 0 {
			again = sooner(again, left)
		} else if !s.notified && events != nil {
			s.notified = true
			events.Eventf(seen.shardedObject(group), nil, corev1.EventTypeWarning, ShardsLackPods, "Enroll",
				"Only %d of %d shards can run, because no more pods of the workload run. Scale the workload to %d pods, or make %s smaller.",
				count-missing, count, count, api.ShardsAnnotation)
		}
		after[group] = s
	}
	if n.all == nil {
		n.all = map[string]map[string]shortage{}
	}
	if n.all[seen.namespace] = after; len(after) == 0 {
		delete(n.all, seen.namespace)
	}
	return lacking, again
}

// forget drops all shortages of a namespace that is gone.
func (n *shortages) forget(namespace string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.all, namespace)
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
