// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
)

// The method "leaps" makes a shim report the leap with the given number.
func (p *pod) leaps(id gate.ShimID, leap int) {
	p.gates.report(id, func(r *gate.Report) { r.Leap = leap })
	synctest.Wait()
}

// answer returns the agent's last grant if that grant answers a leap. Otherwise the second result
// is false.
func (p *pod) answer() (gate.Grant, bool) {
	given := p.gates.given()
	if len(given) == 0 || given[len(given)-1].Leap == 0 {
		return gate.Grant{}, false
	}
	return given[len(given)-1], true
}

// The method "writes" returns the number of all writes to the fake API server so far.
func (w *world) writes() int {
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	return w.server.writes
}

// settled starts a pod, and waits until shortly after a renewal.
func settled(w *world) *pod {
	a := stubborn(w)
	w.pass(time.Minute)
	at := a.writesAt(w)
	w.pass(time.Second)
	assert.Equal(w.t, at, w.writes())
	return a
}

// writesAt waits for the next renewal, and returns the number of all writes by then.
func (p *pod) writesAt(w *world) int {
	before := w.writes()
	w.within(6*time.Second, "renewed", func() bool { return w.writes() > before })
	return w.writes()
}

func TestAgentRenewsAtOnceAfterALeap(t *testing.T) {
	simulate(t, func(w *world) {
		a := settled(w)
		before, now := w.writes(), w.clock()
		a.leaps("s1", 7)
		g, ok := a.answer()
		assert.True(t, ok)
		assert.Equal(t, 7, g.Leap)
		assert.Equal(t, now+25*time.Second, g.Deadline, "of a renewal that was sent just now")
		assert.Equal(t, before+1, w.writes())
		a.leaps("s1", 0)
		w.pass(time.Minute)
		_, ok = a.answer()
		assert.False(t, ok)
		assert.True(t, a.running("s1"))
	})
}

func TestRenewalSentBeforeALeapPermitsNoGrant(t *testing.T) {
	t.Run("its answer comes later", func(t *testing.T) {
		simulate(t, func(w *world) {
			a := settled(w)
			late := make(chan struct{})
			a.link.set(func(l *link) { l.withheld = late })
			a.writesAt(w)
			a.link.set(func(l *link) { l.cut = true })
			a.leaps("s1", 1)
			close(late)
			w.pass(100 * time.Millisecond)
			_, ok := a.answer()
			assert.False(t, ok)
			a.link.set(func(l *link) { l.cut = false })
			w.within(2*time.Second, "answered", func() bool { _, ok := a.answer(); return ok })
		})
	})
	t.Run("its answer is lost", func(t *testing.T) {
		simulate(t, func(w *world) {
			a := settled(w)
			a.link.set(func(l *link) { l.lose = true })
			a.writesAt(w)
			a.leaps("s1", 1)
			w.within(2*time.Second, "answered", func() bool { _, ok := a.answer(); return ok })
			g, _ := a.answer()
			assert.Greater(t, g.Deadline, w.clock()+24*time.Second)
		})
	})
}

func TestAgentGrantsNothingBetweenLeapAndRenewal(t *testing.T) {
	simulate(t, func(w *world) {
		a := settled(w)
		a.link.set(func(l *link) { l.cut = true })
		a.leaps("s1", 1)
		w.pass(10 * time.Second)
		_, ok := a.answer()
		assert.False(t, ok)
		a.link.set(func(l *link) { l.cut = false })
		w.within(2*time.Second, "answered", func() bool { _, ok := a.answer(); return ok })
		assert.True(t, a.running("s1"))
	})
}

func TestAgentKillsChildAfterLosingSlotDuringLeap(t *testing.T) {
	simulate(t, func(w *world) {
		a := settled(w)
		w.edit(func(l *kube.Lease) { l.Holder = "b_u" })
		a.leaps("s1", 1)
		assert.True(t, a.stopped())
		assert.Equal(t, []time.Duration{0}, a.gates.left())
		_, ok := a.answer()
		assert.False(t, ok)
	})
}

// A waiting shim may report a leap long before its pod acquires the slot, or during the
// acquiring write.
func TestWaitingShimGetsGrantAfterReportingALeap(t *testing.T) {
	t.Run("before the slot was acquired", func(t *testing.T) {
		simulate(t, func(w *world) {
			w.free(theSlot)
			a := w.start("a")
			a.gates.connect(gate.Report{Shim: "s1", Container: "app", Leap: 3})
			w.within(time.Second, "child runs", func() bool { return a.running("s1") })
			assert.Equal(t, 3, a.gates.given()[0].Leap)
		})
	})
	t.Run("while the slot was acquired", func(t *testing.T) {
		simulate(t, func(w *world) {
			w.free(theSlot)
			a := w.start("a")
			late := make(chan struct{})
			a.link.set(func(l *link) { l.withheld = late })
			a.connect("s1")
			w.within(time.Second, "acquired", func() bool { return w.holder() == a.identity() })
			a.leaps("s1", 3)
			close(late)
			w.within(2*time.Second, "child runs", func() bool { return a.running("s1") })
			assert.Equal(t, 3, a.gates.given()[0].Leap)
			assert.GreaterOrEqual(t, w.writes(), 2, "renewed before it was granted")
		})
	})
}

func TestAgentGrantsAgainAfterLeapDuringItsRestart(t *testing.T) {
	simulate(t, func(w *world) {
		a := settled(w)
		a.kill()
		a.gates.report("s1", func(r *gate.Report) { r.Leap = 2 })
		a = w.start("a")
		a.gates.connect(a.gates.shim("s1").report)
		w.within(time.Second, "answered", func() bool { _, ok := a.answer(); return ok })
		assert.True(t, a.running("s1"))
	})
}

func TestEveryShimReportingALeapGetsAGrant(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.start("a", func(c *Config) { c.Containers = []string{"app", "other"} })
		a.connect("s1")
		a.gates.connect(gate.Report{Shim: "s2", Container: "other"})
		w.within(time.Second, "children run", func() bool { return a.running("s1") && a.running("s2") })
		w.pass(time.Second)
		before, grants := w.writes(), len(a.gates.given())
		a.leaps("s1", 1)
		a.leaps("s2", 4)
		w.pass(2 * time.Second)
		var answered []int
		for _, g := range a.gates.given()[grants:] {
			answered = append(answered, g.Leap)
		}
		assert.Contains(t, answered, 1)
		assert.Contains(t, answered, 4)
		assert.LessOrEqual(t, w.writes(), before+2)
	})
}

func TestAgentWithoutShimsRenewsAtALeap(t *testing.T) {
	simulate(t, func(w *world) {
		leaps := make(chan struct{})
		w.free(theSlot)
		reconnected := 0
		a := w.start("a", func(c *Config) { c.Leaps, c.Reconnect = leaps, func() { reconnected++ } })
		a.connect("s1")
		w.within(time.Second, "child runs", func() bool { return a.running("s1") })
		w.pass(time.Second)
		before := w.writes()
		leaps <- struct{}{}
		synctest.Wait()
		assert.Equal(t, before+1, w.writes())
		assert.Equal(t, 1, reconnected)
		w.edit(func(l *kube.Lease) { l.Holder = "b_u" })
		w.pass(time.Second)
		leaps <- struct{}{}
		synctest.Wait()
		assert.True(t, a.stopped())
	})
}

// The machine may be paused during the acquiring write. Without shims, nothing freezes the
// child, so no child starts before a later renewal is stored.
func TestAgentWithoutShimsRenewsBetweenLeapAndGrant(t *testing.T) {
	simulate(t, func(w *world) {
		leaps, late := make(chan struct{}), make(chan struct{})
		w.free(theSlot)
		a := w.start("a", func(c *Config) { c.Leaps = leaps })
		a.link.set(func(l *link) { l.withheld = late })
		a.connect("s1")
		w.within(time.Second, "acquired", func() bool { return w.holder() == a.identity() })
		leaps <- struct{}{}
		w.edit(func(l *kube.Lease) { l.Holder = "b_u" }) // the Lease expired while the machine was paused, and b took the slot
		close(late)
		w.pass(time.Second)
		assert.Empty(t, a.gates.given(), "beside another pod's child")
		w.edit(func(l *kube.Lease) { l.Holder = "" })
		w.within(10*time.Second, "child runs", func() bool { return a.running("s1") })
	})
}
