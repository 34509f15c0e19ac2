// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"slices"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
)

// shardedJob is a Job with shards. Its uid is the run of its pods.
type shardedJob struct {
	uid    string
	shards int
	// indexed reports that each pod takes only the shard of its completion index. The field
	// atOnce is the Job's parallelism.
	indexed bool
	atOnce  int
}

// mapWorkload is the workload of all Jobs with shards.
var mapWorkload = api.Workload{Group: "batch", Kind: "Job", Name: "map"}

// slotsOfJob returns the Leases of the shards of a Job. The argument "count" is the number of these
// shards.
func slotsOfJob(count int) []string {
	slots := api.Claim{Kind: api.Shards, Size: count}.Slots(mapWorkload)
	slices.Sort(slots)
	return slots
}

// unmetShards means that a pod goes on although some shard of the run in its condition is not done.
// A condition without a run demands that all shards of some run are done. The stamp of shard 0 must
// have named that run at some instant of the wait.
const unmetShards = "unmet-shards"

// lastJob returns the last Job with shards, even if a person has deleted that Job. In a world
// without such Jobs the result is zero.
func lastJob(w *World) shardedJob {
	if len(w.mapped) == 0 {
		return shardedJob{}
	}
	return w.mapped[len(w.mapped)-1]
}

// shardsMet reports whether all shards of the run in the condition are done now. If the condition
// names no run, the stamps in the states of shard 0 name the possible runs. All shards of one of
// these runs must then be done.
func shardsMet(w *World, c api.Condition, states []apiserver.Version) bool {
	return slices.ContainsFunc(w.mapped, func(of shardedJob) bool {
		named := func(v apiserver.Version) bool { return v.Lease != nil && stampOf(v.Lease).Run == of.uid }
		return (c.Key == of.uid || c.Key == "" && slices.ContainsFunc(states, named)) && allDone(w, of)
	})
}

// allDone reports whether each shard of the Job is done.
func allDone(w *World, of shardedJob) bool { return len(undone(w, of)) == 0 }

// undone returns the shards of the Job that are not done.
func undone(w *World, of shardedJob) []string {
	return slices.DeleteFunc(slotsOfJob(of.shards), func(slot string) bool {
		return slices.Contains(doneOf(w.api.Object("Lease", slot).Last().Lease).Keys(), of.uid)
	})
}

// shardsDone reports whether the wait for the shards has to end. All stamps must name the run of
// the last Job, and all shards of that run must be done. If the condition names another run, the
// result is false.
func shardsDone(w *World, c api.Condition) bool {
	first := w.api.Object("Lease", api.ShardLease(c.Lease, 0)).Last().Lease
	if first == nil {
		return false
	}
	of := lastJob(w)
	decided := stampOf(first)
	if decided.Run != of.uid || c.Key != "" && c.Key != of.uid {
		return false
	}
	for _, slot := range slotsOfJob(of.shards) {
		l := w.api.Object("Lease", slot).Last().Lease
		if l == nil || stampOf(l).Epoch != decided.Epoch || stampOf(l).Run != of.uid {
			return false
		}
	}
	return allDone(w, of)
}

// leaseUnder returns the Lease of the child's slot; nil if there is none.
func leaseUnder(c *child) *kube.Lease {
	if len(c.slots) == 0 {
		return leaseOf(c.pod())
	}
	l, _ := c.pod().w.api.Lease(c.slots[0].Slot)
	return l
}
