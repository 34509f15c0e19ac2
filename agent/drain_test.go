// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/api"
)

// The standbys forward connections to the holder while the Lease shows that its application serves. The
// application takes some seconds to stop.
func TestLeaseSoonShowsThatDrainedApplicationStops(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.start("a")
		a.connect("s1").stop = 3 * time.Second
		serves := func() bool { return w.server.lease(theSlot).Annotations[api.ServingAnnotation] != "" }
		w.within(time.Second, "the application serves", serves)
		w.pass(time.Second)
		a.agent.Yield()
		w.within(stopsAtOnce+50*time.Millisecond, "the Lease shows the stop", func() bool { return !serves() })
		assert.Equal(t, gate.Draining, a.gates.phase("s1"))
	})
}

// The holder is already stopping its child, and then the pod of a newer revision asks. No other pod
// takes the slot in between, so the newer revision needs only one handover.
func TestDeletedHolderNamesPodThatAsksDuringDrain(t *testing.T) {
	simulate(t, func(w *world) {
		a, b := w.rolling()
		a.gates.shims["s1"].stop = 10 * time.Second
		a.delete()
		a.agent.Yield()
		w.within(5*time.Second, "the deletion is known", func() bool {
			known := make(chan bool, 1)
			a.agent.loop.posts.post(w.t.Context(), func(time.Duration) { known <- a.agent.unit.deletion.known })
			return <-known
		})
		assert.Equal(t, gate.Draining, a.gates.phase("s1"))
		b.connect("s3")
		w.within(11*time.Second, "the child has ended", a.stopped)
		w.within(100*time.Millisecond, "the new child runs", func() bool { return b.running("s3") })
		assert.Equal(t, oldRevision, w.rollout().From, "the hold is a turn")
	})
}
