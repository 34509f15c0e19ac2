// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"math/rand/v2"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// Template describes the pods of a workload.
type Template struct {
	// Workload is the name of the workload.
	Workload string
	// Slots are the slots for which the agent competes.
	Slots []string
	// Any reports that the pod needs only one of its slots, as with a semaphore or with shards.
	Any bool
	// Shards is the number of shards of the workload; zero for other claims.
	Shards int
	// Run is the UID of the Job that makes the pods; empty for other controllers.
	Run string
	// Claims are all slots in the pod's annotation, if Slots may be only a part of them; nil
	// otherwise.
	Claims []string
	// Settings are those of the pod's annotations.
	api.Settings
	// Grace is the termination grace period.
	Grace time.Duration
	// Containers are the names of the gated containers.
	Containers []string
	// Inits are the names of the gated init containers, which run before the other containers.
	Inits []string
	// StandBy reports that the pod waits while another pod holds.
	StandBy bool
	// Stable is the name that a pod of a StatefulSet shares with the pod that replaces it. If the
	// field is empty, each pod gets a new name.
	Stable string
	// Restless is the approximate time after which a child ends by itself; 0 means never.
	Restless time.Duration
	// Obedient reports that the children stop at once after SIGTERM.
	Obedient bool
	// LateReader bounds the delay with which an agent reads the reports of its shims.
	LateReader time.Duration
	// Gate selects the mechanism that keeps the child from running.
	Gate api.Gate
	// Revision is zero if the pods take no turns.
	Revision api.Revision
	// Behaviour describes how the application of these pods behaves.
	Behaviour Behaviour
	// EndpointDelay is the time that a holder takes to leave its Services; zero for a pod
	// without ports.
	EndpointDelay time.Duration
	// Strict reports that the controller is strict: during a rollout the controller deletes each
	// old pod that is not Ready.
	Strict bool
	// Ends is the approximate time after which a child ends with success. The kubelet then
	// does not restart its container, and the pod ends. Zero means never.
	Ends time.Duration
}

// Gates are the gates that a pod may have.
var Gates = []api.Gate{api.GateContainer, api.GatePod, api.GateReadiness}

// stops draws the time that a child takes to stop; negative if the child ignores
// SIGTERM.
func (t Template) stops(r *rand.Rand) time.Duration {
	switch n := r.IntN(10); {
	case t.Behaviour.stubborn:
		return -1
	case t.Obedient, n < 5:
		return engine.Between(r, time.Millisecond, 300*time.Millisecond)
	case n < 7:
		return engine.Between(r, time.Second, 5*time.Second)
	case n < 9:
		return engine.Between(r, 5*time.Second, t.Grace+5*time.Second)
	}
	return -1
}

// claimed returns the slots for which enroll makes Leases.
func (t Template) claimed() []string {
	if t.Claims != nil {
		return t.Claims
	}
	return t.Slots
}

// Stated returns the duration that the pods write into their Leases.
func (t Template) Stated() time.Duration { return t.Failsafe.Stated(t.LeaseDuration) }

// StartsOnly reports whether the pods hold slots only while their application starts.
func (t Template) StartsOnly() bool { return len(t.forLife()) == 0 }

// forLife returns the slots that the pods hold while their application runs: all slots except
// those of start locks.
func (t Template) forLife() []string {
	life, _ := api.SplitSlots(t.Slots)
	return life
}
