// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/api"
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

// A person names the pod for two holds, one after the other. The API server answers the check of the first
// hold late, after the check of the second hold has begun. The pod is deleted between the two answers.
func TestLateCheckAheadClearsNoLaterHold(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		long := func(c *Config) { c.LeaseDuration = 2 * time.Minute } // a check may take 10 s
		a, b := w.start("a", long), w.start("b", long)
		a.connect("s1")
		w.within(time.Second, "the child runs", func() bool { return a.running("s1") })
		w.pass(10 * time.Second)
		name := func(checks int) {
			y := api.Yield{Hold: a.gates.hold("s1"), Successor: b.identity()}
			w.annotate(theSlot, api.YieldAnnotation, y.String())
			w.within(time.Second, "the check begins", func() bool { return b.podReads() == checks })
		}
		before := b.podReads()
		b.link.set(func(l *link) { l.delay = 9 * time.Second })
		began := w.clock()
		name(before + 1)
		w.within(6*time.Second, "the old holder takes the slot again", func() bool {
			return len(a.gates.shim("s1").ran) == 2 && a.running("s1")
		})
		w.pass(began + 6*time.Second - w.clock())
		a.gates.shims["s1"].stop = 4 * time.Second
		name(before + 2)
		w.pass(began + 9500*time.Millisecond - w.clock())
		b.delete()
		b.link.set(func(l *link) { l.delay = 800 * time.Millisecond })
		b.connect("s2")
		w.within(10*time.Second, "the child has ended", func() bool { return a.gates.phase("s1") != gate.Draining })
		w.pass(time.Second)
		assert.Empty(t, b.gates.given(), "the pod is being deleted")
	})
}

func TestExpectationOfNextHoldVoidsEarlierCheck(t *testing.T) {
	d := deletion{}
	require.True(t, d.expect("a", "first", time.Second))
	d.cleared = true
	require.True(t, d.expect("a", "second", time.Minute))
	assert.False(t, d.clearedAhead(time.Minute))
}
