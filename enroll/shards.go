// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"cmp"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/enroll/stamp"
)

// sharded has the numbers of shards that the pods and the template of one workload have. A
// change of the template makes these numbers differ.
type sharded struct {
	// template is the number in the template; zero if enroll does not know the template.
	template int
	pods     []shardedPod
}

// shardedPod is a pod that claims one of count shards.
type shardedPod struct {
	object  *corev1.Pod
	count   int
	created time.Time
	// runs reports that the pod waits for its shard, or has one. A pod whose image does not
	// exist never runs.
	runs bool
}

// shardedGroups has the sharded workloads of a namespace, by the group of their Leases.
type shardedGroups map[string]*sharded

func (g shardedGroups) of(group string) *sharded {
	if g[group] == nil {
		g[group] = &sharded{}
	}
	return g[group]
}

// addPod adds a pod whose claim counts. Only the webhook, and a policy, decide which pods
// have the slots of a workload.
func (g shardedGroups) addPod(pod *corev1.Pod) {
	if group, count := api.ShardsOf(slotsOf(pod)); count > 0 {
		of := g.of(group)
		of.pods = append(of.pods, shardedPod{object: pod, count: count, created: pod.CreationTimestamp.Time, runs: runsShard(pod)})
	}
}

func (g shardedGroups) addWorkload(w workload, request api.Request) {
	if count := request.Shards(); count > 0 {
		g.of(api.ShardGroup(w.group)).template = count
	}
}

// number returns the number of shards that counts from now on. The argument is the number
// that counts so far. The template's number counts once a pod with that number runs. Until
// then a change of the template would only stop the shards. If enroll does not know the
// template, the youngest pod that runs has the number.
func (s *sharded) number(current int) int {
	runs := func(p shardedPod) bool { return p.runs }
	if s.template > 0 {
		switch {
		case slices.ContainsFunc(s.pods, func(p shardedPod) bool { return p.runs && p.count == s.template }):
			return s.template
		case slices.ContainsFunc(s.pods, func(p shardedPod) bool { return p.count == current }):
			return current
		}
	}
	return cmp.Or(s.youngest(runs), s.template, current, s.youngest(func(shardedPod) bool { return true }))
}

// youngest returns the number of the youngest pod that the function selects; zero for none.
// Of pods of one age, a pod with the largest number counts.
func (s *sharded) youngest(selects func(shardedPod) bool) int {
	var youngest shardedPod
	for _, p := range s.pods {
		if selects(p) && (youngest.count == 0 || p.created.After(youngest.created) || p.created.Equal(youngest.created) && p.count > youngest.count) {
			youngest = p
		}
	}
	return youngest.count
}

// stampOf returns the stamp of a Lease.
func stampOf(lease *coordinationv1.Lease) api.Stamp {
	return api.ParseStamp(lease.Annotations[api.StampAnnotation])
}

// byGroup returns the Leases of shards by their group, in the order of the shards.
func byGroup(leases map[string]*coordinationv1.Lease) map[string][]stamp.Shard {
	groups := map[string][]stamp.Shard{}
	for name, lease := range leases {
		if group, n, ok := api.ReadShard(name); ok {
			groups[group] = append(groups[group], stamp.Shard{Number: n, Stamp: stampOf(lease), Held: holder(lease) != ""})
		}
	}
	for _, shards := range groups {
		slices.SortFunc(shards, func(a, b stamp.Shard) int { return a.Number - b.Number })
	}
	return groups
}

// decided returns the number that the stamp of shard 0 has; zero without a stamp.
func decided(shards []stamp.Shard) int {
	if len(shards) > 0 && shards[0].Number == 0 {
		return shards[0].Stamp.Count
	}
	return 0
}
