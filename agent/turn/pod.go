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
	// Startup is the time that the startup and readiness probes give the application to start.
	Startup time.Duration
	// MinReady is the controller's minReadySeconds: how long a new pod must be Ready before the controller deletes
	// an old one.
	MinReady time.Duration
}

// provenAfter returns how long the application must serve before the revision is proven. In a turn, the pod is
// Ready after [api.TurnProof], from when the controller counts MinReady.
func (p Pod) provenAfter() time.Duration { return api.TurnProof + p.MinReady }

// Lasts returns the time within which the application must begin to serve, in a turn and in a hold of the proven
// revision, which has needed the time "start" for that; zero if unknown.
func (p Pod) Lasts(start time.Duration) time.Duration {
	return max(shortestTurn, min(p.Startup, longestStartup), min(slower*start, api.LongestTurn))
}

// Slot is the slot's Lease, as the agent sees it.
type Slot struct {
	// Known is false if the agent has not read the Lease, or if the Lease is gone.
	Known bool
	// Holder and Hold are empty while the slot is released.
	Holder, Hold string
	// Revision is the revision of the holder. In a released slot the field has no meaning.
	Revision api.Revision
	// Rollout is the state of the rollout, as the Lease has it.
	Rollout api.Rollout
	// Successor is the pod that the release names; empty for none.
	Successor string
	// FreeAt is the instant from which the slot is free; [pace.Never] while the agent does not see the Lease.
	FreeAt time.Duration
	// Since is the instant at which the agent first saw the present value of Hold, also after a release.
	Since time.Duration
	// Earlier reports, for a hold of this pod, that an earlier agent process began the hold.
	Earlier bool
}
