// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"cmp"
	"maps"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/api/podspec"
	"github.com/metaparticle-io/metaparticle/enroll/stamp"
)

// sharded describes one workload with shards. The template states a number of shards, and so does
// each pod. After a change of the template, these numbers may differ.
type sharded struct {
	// template is the number of shards that the pod template states; zero if enroll does not know
	// the template.
	template int
	pods     []shardedPod
}

// shardedPod is a pod that claims a shard. The field "count" is the number of shards that the pod
// expects.
type shardedPod struct {
	object  *corev1.Pod
	count   int
	created time.Time
	// run is the UID of the pod's Job; empty if no Job controls the pod. The field "stays" reports
	// that nobody has deleted the pod.
	run   string
	stays bool
	// orphaned reports that the pod has no controller: a person has deleted its Job, but not the
	// pod.
	orphaned bool
	// runs reports that the pod waits for a shard, or holds a shard. A pod whose image does not
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

// addPod adds a pod to the group of the Leases that the pod's slots name. The caller has
// checked that the pod's claim counts. The webhook and a policy make sure that only a
// workload's own pods name the workload's slots. So no other pod has an influence on the
// workload's number of shards.
func (g shardedGroups) addPod(pod *corev1.Pod) {
	if group, count := api.ShardsOf(slotsOf(pod)); count > 0 {
		of := g.of(group)
		of.pods = append(of.pods, shardedPod{
			object: pod, count: count, created: pod.CreationTimestamp.Time, runs: runsShard(pod), run: podspec.Run(pod), stays: pod.DeletionTimestamp == nil, orphaned: metav1.GetControllerOf(pod) == nil,
		})
	}
}

func (g shardedGroups) addWorkload(w workload, request api.Request) {
	if count := request.Shards(); count > 0 && w.group.Kind != "CronJob" { // each Job of a CronJob is a separate run
		g.of(api.ShardGroup(w.group)).template = count
	}
}

// number returns the number of shards, and the run, for which enroll opens the Leases from now on.
// The argument "current" is the stamp of shard 0, which has the present number and run.
func (s *sharded) number(current api.Stamp) (count int, run string) {
	if slices.ContainsFunc(s.pods, func(p shardedPod) bool { return p.run != "" }) {
		return s.nextRun(current)
	}
	if current.Run != "" && !slices.ContainsFunc(s.pods, func(p shardedPod) bool { return !p.orphaned }) {
		return current.Count, current.Run
	}
	return s.lasting(current.Count), ""
}

// inOrder reports whether the Leases of the shards need no new stamp.
func (s *sharded) inOrder(shards []stamp.Shard) bool {
	count, run := s.number(decided(shards))
	return stamp.InOrder(shards, count, run)
}

// due reports whether the existing Leases of the shards need a new stamp, or may need a new stamp
// once they have expired. Missing Leases need no stamp.
func (s *sharded) due(shards []stamp.Shard) bool {
	count, run := s.number(decided(shards))
	shut := func(shard stamp.Shard) bool { return shard.Stamp.Closed && shard.Held }
	return slices.ContainsFunc(shards, shut) || len(stamp.Next(shards, count, run, false)) > 0
}

// nextRun returns the number of shards, and the run, for the pods of Jobs. A run stays valid until
// all its pods are deleted, because two concurrent Jobs would otherwise stop each other's shards
// again and again. After that, the run of the youngest pod is valid.
func (s *sharded) nextRun(current api.Stamp) (count int, run string) {
	stays := func(p shardedPod) bool { return p.run != "" && p.stays }
	if slices.ContainsFunc(s.pods, func(p shardedPod) bool { return stays(p) && p.run == current.Run && p.count == current.Count }) {
		return current.Count, current.Run
	}
	next := s.youngest(stays)
	if next.run == current.Run && current.Run != "" {
		// A recorded success belongs to one shard. With another number of shards, each shard would
		// be another part of the work. So a run's number of shards never changes.
		return current.Count, current.Run
	}
	if next.run == "" && current.Run != "" {
		return current.Count, current.Run
	} else if next.run == "" {
		next = s.youngest(func(p shardedPod) bool { return p.run != "" })
	}
	return next.count, next.run
}

// lasting returns the number of shards for pods that belong to no Job. The argument "current" is
// the present number. The template's number becomes valid once a pod with that number runs, because
// an earlier change would only stop the shards. If enroll does not know the template, the number of
// the youngest running pod is valid.
func (s *sharded) lasting(current int) int {
	runs := func(p shardedPod) bool { return p.runs }
	if s.template > 0 {
		switch {
		case slices.ContainsFunc(s.pods, func(p shardedPod) bool { return p.runs && p.count == s.template }):
			return s.template
		case slices.ContainsFunc(s.pods, func(p shardedPod) bool { return p.count == current }):
			return current
		}
	}
	return cmp.Or(s.youngest(runs).count, s.template, current, s.youngest(func(shardedPod) bool { return true }).count)
}

// youngest returns the youngest pod for which the function "selects" returns true. If no pod is
// selected, the result is the zero value. Among pods of the same age, youngest prefers the largest
// number of shards, and then the last run in sorted order.
func (s *sharded) youngest(selects func(shardedPod) bool) (youngest shardedPod) {
	for _, p := range s.pods {
		order := cmp.Or(p.created.Compare(youngest.created), p.count-youngest.count, cmp.Compare(p.run, youngest.run))
		if selects(p) && (youngest.count == 0 || order > 0) {
			youngest = p
		}
	}
	return youngest
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

// decided returns the stamp of shard 0. If the Lease of shard 0 is missing or has no stamp, the
// result is the zero value.
func decided(shards []stamp.Shard) api.Stamp {
	if len(shards) > 0 && shards[0].Number == 0 {
		return shards[0].Stamp
	}
	return api.Stamp{}
}

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
