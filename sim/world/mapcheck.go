// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"slices"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
)

// ShardedJob is a Job with shards. Its uid is the run of its pods.
type ShardedJob struct {
	// UID is the uid of the Job, and the field Shards is the number of its shards.
	UID    string
	Shards int
	// Indexed reports that each pod takes only the shard of its completion index. The field AtOnce
	// is the Job's parallelism.
	Indexed bool
	AtOnce  int
}

// MapWorkload is the workload of all Jobs with shards.
var MapWorkload = api.Workload{Group: "batch", Kind: "Job", Name: "map"}

// SlotsOfJob returns the Leases of the shards of a Job. The argument "count" is the number of these
// shards.
func SlotsOfJob(count int) []string {
	slots := api.Claim{Kind: api.Shards, Size: count}.Slots(MapWorkload)
	slices.Sort(slots)
	return slots
}

// unmetShards means that a pod goes on although some shard of the run in its condition is not done.
// A condition without a run demands that all shards of some run are done. The stamp of shard 0 must
// have named that run at some instant of the wait.
const unmetShards = "unmet-shards"

// LastJob returns the last Job with shards, even if a person has deleted that Job. In a world
// without such Jobs the result is zero.
func LastJob(w *World) ShardedJob {
	if len(w.Mapped) == 0 {
		return ShardedJob{}
	}
	return w.Mapped[len(w.Mapped)-1]
}

// shardsMet reports whether all shards of the run in the condition are done now. If the condition
// names no run, the stamps in the states of shard 0 name the possible runs. All shards of one of
// these runs must then be done.
func shardsMet(w *World, c api.Condition, states []apiserver.Version) bool {
	return slices.ContainsFunc(w.Mapped, func(of ShardedJob) bool {
		named := func(v apiserver.Version) bool { return v.Lease != nil && StampOf(v.Lease).Run == of.UID }
		return (c.Key == of.UID || c.Key == "" && slices.ContainsFunc(states, named)) && allDone(w, of)
	})
}

// allDone reports whether each shard of the Job is done.
func allDone(w *World, of ShardedJob) bool { return len(Undone(w, of)) == 0 }

// Undone returns the shards of the Job that are not done.
func Undone(w *World, of ShardedJob) []string {
	return slices.DeleteFunc(SlotsOfJob(of.Shards), func(slot string) bool {
		return slices.Contains(DoneOf(w.API.Object("Lease", slot).Last().Lease).Keys(), of.UID)
	})
}

// shardsDone reports whether the wait for the shards has to end. All stamps must name the run of
// the last Job, and all shards of that run must be done. If the condition names another run, the
// result is false.
func shardsDone(w *World, c api.Condition) bool {
	first := w.API.Object("Lease", api.ShardLease(c.Lease, 0)).Last().Lease
	if first == nil {
		return false
	}
	of := LastJob(w)
	decided := StampOf(first)
	if decided.Run != of.UID || c.Key != "" && c.Key != of.UID {
		return false
	}
	for _, slot := range SlotsOfJob(of.Shards) {
		l := w.API.Object("Lease", slot).Last().Lease
		if l == nil || StampOf(l).Epoch != decided.Epoch || StampOf(l).Run != of.UID {
			return false
		}
	}
	return allDone(w, of)
}

// leaseUnder returns the Lease of the child's first slot; nil if no such Lease exists.
func leaseUnder(c *Child) *apiserver.Lease {
	if len(c.Slots) == 0 {
		return leaseOf(c.Pod())
	}
	l, _ := c.Pod().w.API.Lease(c.Slots[0].Slot)
	return l
}

// leaseOf returns the Lease of the pod's first slot; nil if there is none.
func leaseOf(p *Pod) *apiserver.Lease {
	l, _ := p.w.API.Lease(p.Slots[0])
	return l
}
