// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"math/rand/v2"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// template describes the pods of a workload.
type template struct {
	workload string
	slots    []string
	// any reports that the pod needs only one of its slots, as with a semaphore or with shards.
	any bool
	// shards is the number of shards of the workload; zero for other claims.
	shards int
	// run is the UID of the Job that makes the pods; empty for other controllers.
	run string
	// claims are the slots in the annotation of the pod, if the agent competes only for some of
	// them; nil otherwise.
	claims     []string
	duration   time.Duration
	grace      time.Duration
	containers []string
	// inits are gated init containers, which run before the other containers.
	inits   []string
	standBy bool
	// stable is the name that a pod of a StatefulSet shares with the pod that replaces it. If
	// stable is empty, each pod gets a new name.
	stable string
	// restless is the approximate time after which a child ends by itself; 0 means never.
	restless time.Duration
	// obedient reports that the children stop at once after SIGTERM.
	obedient bool
	// lateReader bounds the delay with which an agent reads the reports of its shims.
	lateReader time.Duration
	// gate selects the mechanism that keeps the child from running.
	gate api.Gate
	// revision is zero if the pods take no turns.
	revision  api.Revision
	behaviour behaviour
	// endpointDelay is the time that a holder takes to leave its Services; zero for a pod
	// without ports.
	endpointDelay time.Duration
	// strict reports that the controller replaces each old pod that is not Ready.
	strict bool
	// ends is the approximate time after which a child ends with success. The kubelet then
	// does not restart its container, and the pod ends. Zero means never.
	ends time.Duration
	// onBusy selects what the pod does while another pod holds. The field "waitAtMost" bounds the
	// wait of the pod; 0 means no bound.
	onBusy     api.OnBusy
	waitAtMost time.Duration
}

// gates are the gates that a pod may have.
var gates = []api.Gate{api.GateContainer, api.GatePod, api.GateReadiness}

// stops draws the time that a child takes to stop; negative if the child ignores
// SIGTERM.
func (t template) stops(r *rand.Rand) time.Duration {
	switch n := r.IntN(10); {
	case t.behaviour.stubborn:
		return -1
	case t.obedient, n < 5:
		return engine.Between(r, time.Millisecond, 300*time.Millisecond)
	case n < 7:
		return engine.Between(r, time.Second, 5*time.Second)
	case n < 9:
		return engine.Between(r, 5*time.Second, t.grace+5*time.Second)
	}
	return -1
}

// claimed returns the slots for which enroll makes Leases.
func (t template) claimed() []string {
	if t.claims != nil {
		return t.claims
	}
	return t.slots
}

// startsOnly reports whether the pods hold no slot for life.
func (t template) startsOnly() bool { return len(t.forLife()) == 0 }

// forLife returns the slots that the pods hold for life.
func (t template) forLife() []string {
	life, _ := api.SplitSlots(t.slots)
	return life
}
