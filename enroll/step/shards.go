// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package step

import (
	"cmp"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// Sharded describes one workload with shards. The template states a number of shards, and so does
// each pod. After a change of the template, these numbers may differ.
type Sharded struct {
	// Template is the number of shards that the pod template states; zero if enroll does not know
	// the template.
	Template int
	Pods     []ShardedPod
}

// ShardedPod is a pod that claims a shard. The field Count is the number of shards that the pod
// expects.
type ShardedPod struct {
	Count   int
	Created time.Time
	// Run is the UID of the pod's Job; empty if no Job controls the pod. The field Stays reports
	// that nobody has deleted the pod.
	Run   string
	Stays bool
	// Orphaned reports that the pod has no controller: a person has deleted its Job, but not the
	// pod.
	Orphaned bool
	// Runs reports that the pod waits for a shard, or holds a shard. A pod whose image does not
	// exist never runs.
	Runs bool
}

// Number returns the number of shards, and the run, for which enroll opens the Leases from now on.
// The argument "current" is the stamp of shard 0, which has the present number and run.
func (s *Sharded) Number(current api.Stamp) (count int, run string) {
	if slices.ContainsFunc(s.Pods, func(p ShardedPod) bool { return p.Run != "" }) {
		return s.nextRun(current)
	}
	if current.Run != "" && !slices.ContainsFunc(s.Pods, func(p ShardedPod) bool { return !p.Orphaned }) {
		return current.Count, current.Run
	}
	return s.lasting(current.Count), ""
}

// InOrder reports whether the Leases of the shards need no new stamp.
func (s *Sharded) InOrder(shards []Shard) bool {
	count, run := s.Number(Decided(shards))
	return InOrder(shards, count, run)
}

// Due reports whether the existing Leases of the shards need a new stamp, or may need a new stamp
// once they have expired. Missing Leases need no stamp.
func (s *Sharded) Due(shards []Shard) bool {
	count, run := s.Number(Decided(shards))
	shut := func(shard Shard) bool { return shard.Stamp.Closed && shard.Held }
	return slices.ContainsFunc(shards, shut) || len(Next(shards, count, run, false)) > 0
}

// nextRun returns the number of shards, and the run, for the pods of Jobs. A run stays valid until
// all its pods are deleted, because two concurrent Jobs would otherwise stop each other's shards
// again and again. After that, the run of the youngest pod is valid.
func (s *Sharded) nextRun(current api.Stamp) (count int, run string) {
	stays := func(p ShardedPod) bool { return p.Run != "" && p.Stays }
	if slices.ContainsFunc(s.Pods, func(p ShardedPod) bool { return stays(p) && p.Run == current.Run && p.Count == current.Count }) {
		return current.Count, current.Run
	}
	next := s.youngest(stays)
	if next.Run == current.Run && current.Run != "" {
		// A recorded success belongs to one shard. With another number of shards, each shard would
		// be another part of the work. So a run's number of shards never changes.
		return current.Count, current.Run
	}
	if next.Run == "" && current.Run != "" {
		return current.Count, current.Run
	} else if next.Run == "" {
		next = s.youngest(func(p ShardedPod) bool { return p.Run != "" })
	}
	return next.Count, next.Run
}

// lasting returns the number of shards for pods that belong to no Job. The argument "current" is
// the present number. The template's number becomes valid once a pod with that number runs, because
// an earlier change would only stop the shards. If enroll does not know the template, the number of
// the youngest running pod is valid.
func (s *Sharded) lasting(current int) int {
	runs := func(p ShardedPod) bool { return p.Runs }
	if s.Template > 0 {
		switch {
		case slices.ContainsFunc(s.Pods, func(p ShardedPod) bool { return p.Runs && p.Count == s.Template }):
			return s.Template
		case slices.ContainsFunc(s.Pods, func(p ShardedPod) bool { return p.Count == current }):
			return current
		}
	}
	return cmp.Or(s.youngest(runs).Count, s.Template, current, s.youngest(func(ShardedPod) bool { return true }).Count)
}

// youngest returns the youngest pod for which the function "selects" returns true. If no pod is
// selected, the result is the zero value. Among pods of the same age, youngest prefers the largest
// number of shards, and then the last run in sorted order.
func (s *Sharded) youngest(selects func(ShardedPod) bool) (youngest ShardedPod) {
	for _, p := range s.Pods {
		order := cmp.Or(p.Created.Compare(youngest.Created), p.Count-youngest.Count, cmp.Compare(p.Run, youngest.Run))
		if selects(p) && (youngest.Count == 0 || order > 0) {
			youngest = p
		}
	}
	return youngest
}

// Shortage returns how many shards have no running pod. The result is zero for a workload without
// any pod, because a person has scaled that workload to 0. The result is also zero for a run:
// the pods of a Job take the shards one after the other.
func (s *Sharded) Shortage(count int, run string) int {
	running := 0
	for _, p := range s.Pods {
		if p.Runs && p.Count == count {
			running++
		}
	}
	if len(s.Pods) == 0 || run != "" {
		return 0
	}
	return max(count-running, 0)
}

// Groups returns the Leases of shards by their group, in the order of the shards.
func Groups(leases map[string]*Lease) map[string][]Shard {
	groups := map[string][]Shard{}
	for name, lease := range leases {
		if group, n, ok := api.ReadShard(name); ok {
			groups[group] = append(groups[group], Shard{Number: n, Stamp: lease.Stamp(), Held: lease.Holder != ""})
		}
	}
	for _, shards := range groups {
		slices.SortFunc(shards, func(a, b Shard) int { return a.Number - b.Number })
	}
	return groups
}

// Decided returns the stamp of shard 0. If the Lease of shard 0 is missing or has no stamp, the
// result is the zero value.
func Decided(shards []Shard) api.Stamp {
	if len(shards) > 0 && shards[0].Number == 0 {
		return shards[0].Stamp
	}
	return api.Stamp{}
}

// SameStamp reports whether the update of a Lease changes neither the stamp, nor whether a Lease with a
// closed stamp is free. All other updates, such as the agents' renewals, do not matter to the stamps.
func SameStamp(was, is *Lease) bool {
	stamp := is.Stamp()
	return was.Stamp() == stamp && (!stamp.Closed || (was.Holder == "") == (is.Holder == ""))
}

// Absent reports whether a Role names the Lease of a shard that is missing in the group's slice. The
// last holder of that Lease may be alive.
func (rs *Roles) Absent(group string, shards []Shard) bool {
	for name := range rs.Longest {
		of, n, ok := api.ReadShard(name)
		if ok && of == group && !slices.ContainsFunc(shards, func(known Shard) bool { return known.Number == n }) {
			return true
		}
	}
	return false
}

// Shut returns the closed Leases that have a holder. [Facts.Expired] wants sightings of these.
func Shut(leases map[string]*Lease) map[Right]*Lease {
	shut := map[Right]*Lease{}
	for name, lease := range leases {
		if lease.Stamp().Closed && lease.Holder != "" {
			shut[Right{Lease: name}] = lease
		}
	}
	return shut
}

// Expired reports whether this process has seen a closed Lease unchanged for the Lease's whole
// duration, and otherwise how long this still takes. A standby measures a Lease's age in the same
// way. For a Lease that is not among the sightings of [Shut], the results are false and zero.
func (f *Facts) Expired(shut Sightings, lease *Lease, now time.Time) (expired bool, left time.Duration) {
	seen, ok := shut[Right{Lease: lease.Name}]
	if !ok {
		return false, 0
	}
	// Without a renewal no hold lasts longer than api.MaxLeaseDuration, whatever duration a user
	// has written.
	duration := min(max(f.sweepAfter(lease.Name), lease.Duration), api.MaxLeaseDuration)
	left = seen.since.Add(duration).Sub(now)
	return left <= 0, max(left, 0)
}
