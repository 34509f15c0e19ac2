// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

// The first shim dies before the API server answers the check of its hold. The pod is deleted after
// that answer, but before the answer to the check of the next hold.
func TestGrantAwaitsDeletionCheckOfItsHold(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.start("a")
		w.pass(10 * time.Second)
		a.link.set(func(l *link) { l.delay = 900 * time.Millisecond })
		began := w.clock()
		a.connect("s1")
		w.within(50*time.Millisecond, "the first hold begins", func() bool { return w.holder() == a.identity() })
		a.gates.report("s1", func(r *gate.Report) { r.Connected, r.Dead = false, true })
		w.within(50*time.Millisecond, "the first hold ends", func() bool { return w.holder() == "" })
		w.pass(200 * time.Millisecond)
		a.connect("s2")
		w.within(50*time.Millisecond, "the second hold begins", func() bool { return w.holder() == a.identity() })
		w.pass(began + 1100*time.Millisecond - w.clock())
		a.delete()
		w.pass(time.Minute)
		assert.Empty(t, a.gates.given(), "only the check of the second hold has found the deletion")
		assert.Empty(t, w.holder())
	})
}

// The first shim dies before the API server answers the check of its hold. That answer comes after the
// answer to the check of the next hold.
func TestLateCheckOfEarlierHoldDelaysNoGrant(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.start("a", func(c *Config) { c.Containers = []string{"app", "helper"} })
		w.pass(10 * time.Second)
		a.link.set(func(l *link) { l.delay = 900 * time.Millisecond })
		a.connect("s1")
		w.within(50*time.Millisecond, "the first hold begins", func() bool { return w.holder() == a.identity() })
		a.gates.report("s1", func(r *gate.Report) { r.Connected, r.Dead = false, true })
		w.within(50*time.Millisecond, "the first hold ends", func() bool { return w.holder() == "" })
		a.link.set(func(l *link) { l.delay = 0 })
		a.connect("s2")
		w.within(50*time.Millisecond, "the child runs", func() bool { return a.running("s2") })
		w.pass(2 * time.Second)
		a.gates.connect(gate.Report{Shim: "h", Container: "helper"})
		w.within(50*time.Millisecond, "the helper runs, too", func() bool { return a.running("h") })
	})
}
