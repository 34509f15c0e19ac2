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
	// Revision is zero for a pod that takes no turns.
	Revision api.Revision
	// Startup is the time that the startup and readiness probes give the application to
	// start; zero without probes.
	Startup time.Duration
	// MinReady is the time for which the controller wants a new pod to be Ready, before it
	// deletes an old one.
	MinReady time.Duration
}

// provenAfter returns the time for which the revision serves before it is proven. In its
// turn the pod is Ready after [Proof], and the controller counts its MinReady from that
// instant.
func (p Pod) provenAfter() time.Duration { return Proof + p.MinReady }

// Lasts returns the time within which the application has to begin to serve. The time counts
// in a turn, and at the start of a hold by a pod of the proven revision. The argument start is
// the time that the proven revision took until it served; zero for unknown.
func (p Pod) Lasts(start time.Duration) time.Duration {
	return max(shortestTurn, min(p.Startup, longestStartup), min(slower*start, longestTurn))
}

// Slot is the Lease of the slot as the agent sees it.
type Slot struct {
	// Known is false for a Lease that was not read, or is gone.
	Known bool
	// Holder and Hold are empty in a released Lease.
	Holder, Hold string
	// Revision is the revision of the holder, or of the last holder.
	Revision api.Revision
	// Rollout is the rollout in the Lease.
	Rollout Rollout
	// Successor is the pod that the release names; empty for none.
	Successor string
	// FreeAt is the instant from which the slot is free, as far as the agent sees; [instant.Never]
	// while the agent does not see the Lease.
	FreeAt time.Duration
	// Since is the instant at which the agent first saw the hold.
	Since time.Duration
	// Earlier: this agent process did not begin the hold. The field matters only for a hold
	// of this pod.
	Earlier bool
}

// current reports whether the agent of this hold wrote the Lease's rollout.
func (s Slot) current() bool {
	return s.Holder != "" && s.Hold != "" && s.Rollout.Hold == s.Hold && s.Rollout.Yields != ""
}
