// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

// The child dies while its shim has no connection. Then the shim connects again, and reports the hold of
// the dead child.
func TestChildThatDiesUnconnectedFreesStartLock(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.startsUnderLock(newPatient("readiness"), func(c *Config) { c.Slots = []string{theSlot} })
		hold := a.gates.hold("s1")
		close(a.gates.shims["s1"].ended)
		a.gates.report("s1", func(r *gate.Report) { r.Connected = false })
		w.pass(time.Second)
		l := w.server.lease(theSlot)
		l.Annotations["metaparticle.io/paused"] = "stop"
		w.server.put(&l)
		w.pass(time.Second)
		assert.Equal(t, a.identity(), w.starting())
		a.gates.connect(gate.Report{Shim: "s1", Container: "app", Phase: gate.Waiting, Hold: hold})
		w.within(3*time.Second, "slot is free", func() bool { return w.holder() == "" })
		w.within(3*time.Second, "start lock is free", func() bool { return w.starting() == "" })
	})
}
