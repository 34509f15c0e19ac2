// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// Pod is the pod whose agent decides.
type Pod struct {
	Identity string
	// Revision is zero for a pod without an order.
	Revision api.Revision
	// Startup is the time that the startup probes leave the application; zero without.
	Startup time.Duration
	// MinReady is the time for which the controller wants a new pod to be Ready, before it
	// deletes an old one.
	MinReady time.Duration
}

// provenAfter returns the time for which the revision serves before it is proven. In its
// turn the pod is Ready after [Proof], and the controller counts from then.
func (p Pod) provenAfter() time.Duration { return Proof + p.MinReady }

// lasts returns the longest time of a turn without serving, if the proven revision took
// so long to start.
func (p Pod) lasts(start time.Duration) time.Duration {
	return min(max(shortestTurn, p.Startup, slower*start), longestTurn)
}

// Slot is the Lease of the slot as the agent sees it.
type Slot struct {
	// Known is false for a Lease that was not read, or is gone.
	Known bool
	// Holder and Hold are empty in a released Lease.
	Holder, Hold string
	// Revision is that of the holder, or of the last one.
	Revision api.Revision
	// Rollout is what the Lease says about the order.
	Rollout Rollout
	// Successor is the pod that the release names; empty for none.
	Successor string
	// FreeAt is the instant from which the slot is free, as far as the agent sees; [Never]
	// while the agent does not see the Lease.
	FreeAt time.Duration
	// Since is the instant at which the agent first saw the hold.
	Since time.Duration
	// Earlier: the hold is not of this agent process. Only an own hold counts.
	Earlier bool
}

// current reports whether the holder's agent wrote the order of this hold.
func (s Slot) current() bool {
	return s.Holder != "" && s.Hold != "" && s.Rollout.Hold == s.Hold && s.Rollout.Yields != ""
}
