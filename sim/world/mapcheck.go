// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"slices"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// unmetShards means that a pod goes on although a shard of the run is not done. The condition names
// the run, or the stamps have named the run since the wait began.
const unmetShards = "unmet-shards"

// lastJob returns the Job of the sharded workload that exists; zero in a world without such Jobs.
func lastJob(w *World) shardedJob {
	if len(w.mapped) == 0 {
		return shardedJob{}
	}
	return w.mapped[len(w.mapped)-1]
}

// shardsMet reports whether the shards of the run, or of some run that the states of shard 0 name,
// are done now.
func shardsMet(w *World, c api.Condition, states []version) bool {
	return slices.ContainsFunc(w.mapped, func(of shardedJob) bool {
		named := func(v version) bool { return v.lease != nil && stampOf(v.lease).Run == of.uid }
		return (c.Key == of.uid || c.Key == "" && slices.ContainsFunc(states, named)) && allDone(w, of)
	})
}

// allDone reports whether each shard of the Job is done.
func allDone(w *World, of shardedJob) bool { return len(undone(w, of)) == 0 }

// undone returns the shards of the Job that are not done.
func undone(w *World, of shardedJob) []string {
	return slices.DeleteFunc(slotsOfJob(of.shards), func(slot string) bool {
		return slices.Contains(doneOf(w.api.object("Lease", slot).last().lease).Keys(), of.uid)
	})
}

// shardsDone reports whether the wait for the shards has to end: the stamps name the run, and all of
// its shards are done.
func shardsDone(w *World, c api.Condition) bool {
	first := w.api.object("Lease", api.ShardLease(c.Lease, 0)).last().lease
	if first == nil {
		return false
	}
	of := lastJob(w)
	decided := stampOf(first)
	if decided.Run != of.uid || c.Key != "" && c.Key != of.uid {
		return false
	}
	for _, slot := range slotsOfJob(of.shards) {
		l := w.api.object("Lease", slot).last().lease
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
	l, _ := c.pod().w.api.lease(c.slots[0].Slot)
	return l
}
