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
		a.gates.connect(gate.Report{Shim: "s1", Container: "app"}).stop = 3 * time.Second
		serves := func() bool { return w.server.lease(theSlot).Annotations[api.ServingAnnotation] != "" }
		w.within(time.Second, "the application serves", serves)
		w.pass(time.Second)
		a.agent.Yield()
		w.within(stopsAtOnce+50*time.Millisecond, "the Lease shows the stop", func() bool { return !serves() })
		assert.Equal(t, gate.Draining, a.gates.phase("s1"))
	})
}
