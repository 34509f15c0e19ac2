// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
)

// These are the names of the invariants of pods with conditions, like the names in check.go. Each
// comment describes the violation. The wait for the first condition begins at the start of the
// pod's process. Each further wait begins at the earliest instant at which the earlier conditions
// on keys and holders were met.
const (
	// unmetKey means that a pod goes on although the key of a condition is not done. No state of
	// the Lease since the beginning of the wait records this key.
	unmetKey = "unmet-key"
	// unmetHolder means that a pod goes on although no holder has served and renewed since the wait
	// began.
	unmetHolder = "unmet-holder"
	// WaitsOn means that a pod waits for longer than the rules allow, in quiet times, after
	// its conditions were met.
	WaitsOn = "waits-on"
)

// checkMet demands that each condition was met, one after the other, before the pod goes on. The
// argument "at" is the instant at which the process of the pod began.
func (w *World) checkMet(pod string, conditions []api.Condition, at time.Duration) {
	for _, c := range conditions {
		if c.Sharded() {
			if !shardsMet(w, c, w.API.Object("Lease", api.ShardLease(c.Lease, 0)).Since(at)) {
				w.Violate(unmetShards, "%s goes on, and the shards of %v were not done", pod, c)
			}
			continue
		}
		states := w.API.Object("Lease", c.Lease).Since(at)
		met, how := keyMet(states, c.Key), unmetKey
		if c.Key == "" {
			met, how = holderMet(states), unmetHolder
		}
		if met < 0 {
			w.Violate(how, "%s goes on, and %v was never met since %v", pod, c, at)
			return
		}
		at = max(at, states[met].At)
	}
}

// keyMet returns the index of the first state in which the key is done; negative if there is no
// such state.
func keyMet(states []apiserver.Version, key string) int {
	return slices.IndexFunc(states, func(v apiserver.Version) bool { return slices.Contains(DoneOf(v.Lease).Keys(), key) })
}

// holderMet returns the index of the first state that a renewal has made, and in which the holder
// serves. The index is negative if there is no such state.
func holderMet(states []apiserver.Version) int {
	for i := 1; i < len(states); i++ {
		if renews(states[i-1], states[i]) && states[i].Lease.Annotations[api.ServingAnnotation] != "" {
			return i
		}
	}
	return -1
}

// renews reports whether the write that made the second state renews the hold of the first
// state.
func renews(before, after apiserver.Version) bool {
	was, is := before.Lease, after.Lease
	if was == nil || is == nil || before.UID != after.UID || is.Holder == "" || is.Holder == Unknown {
		return false
	}
	same := was.Holder == is.Holder && was.Annotations[api.HoldAnnotation] == is.Annotations[api.HoldAnnotation]
	return same && !is.RenewTime.Equal(was.RenewTime.Time)
}

// KeysDone reports whether the keys and shards of all conditions are done now. If a condition is
// about a holder, the function returns false, because a holder may die at any time.
func (w *World) KeysDone(conditions []api.Condition) bool {
	return !slices.ContainsFunc(conditions, func(c api.Condition) bool {
		if c.Sharded() {
			return !shardsDone(w, c)
		}
		return c.Key == "" || !slices.Contains(DoneOf(w.API.Object("Lease", c.Lease).Last().Lease).Keys(), c.Key)
	})
}
