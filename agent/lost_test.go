// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/show"
	"github.com/metaparticle-io/metaparticle/api"
)

// stubborn starts a pod that holds the slot, and whose child does not stop at SIGTERM.
func stubborn(w *world, change ...func(c *Config)) *pod {
	w.free(theSlot)
	a := w.start("a", change...)
	a.connect("s1").stop = time.Hour
	w.within(time.Second, "child runs", func() bool { return a.running("s1") })
	return a
}

// edit changes the Lease as a person, or another pod, would.
func (w *world) edit(change func(l *kube.Lease)) {
	l := w.server.lease(theSlot)
	change(&l)
	w.server.put(&l)
}

// stopped reports whether the first child of the shim s1 is dead.
func (p *pod) stopped() bool { return p.gates.shim("s1").ran[0][1] >= 0 }

func TestChildGetsGraceOnlyIfLeaseNamesPod(t *testing.T) {
	const drain = 9 * time.Second // the time for a drain, if the lease duration is 30 s
	for name, c := range map[string]struct {
		change func(l *kube.Lease)
		grace  time.Duration
	}{
		"another pod":         {change: func(l *kube.Lease) { l.Holder = "b_u" }},
		"cleared":             {change: func(l *kube.Lease) { l.Holder = "" }},
		"another object":      {change: func(l *kube.Lease) { l.UID, l.Holder = "made-anew", "unknown" }},
		"this pod, by itself": {change: func(l *kube.Lease) { l.Annotations[api.HoldAnnotation] = "h2" }, grace: drain},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				a := stubborn(w)
				w.edit(c.change)
				w.within(10*time.Millisecond, "drain is asked for", func() bool { return len(a.gates.told()) > 0 })
				took := w.within(drain+time.Second, "child is dead", a.stopped)
				assert.Equal(t, []string{show.ReasonLost}, a.gates.told())
				assert.Equal(t, []time.Duration{c.grace}, a.gates.left())
				assert.InDelta(t, c.grace.Seconds(), took.Seconds(), .02)
			})
		})
	}
}

func TestLostSlotEndsTheGraceOfADrain(t *testing.T) {
	simulate(t, func(w *world) {
		a := stubborn(w, func(c *Config) { c.Grace = time.Minute })
		a.agent.Yield()
		w.pass(30 * time.Second)
		assert.Equal(t, gate.Draining, a.gates.phase("s1"), "renewed while its child stops")
		w.edit(func(l *kube.Lease) { l.Holder = "b_u" })
		w.within(6*time.Second, "child is dead", a.stopped)
		assert.Equal(t, []time.Duration{time.Minute, 0}, a.gates.left())
	})
}

func TestRestartedAgentKillsChildIfAnotherPodHolds(t *testing.T) {
	for name, phase := range map[string]gate.Phase{"running": gate.Running, "draining": gate.Draining} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				a := stubborn(w)
				a.kill()
				if phase == gate.Draining {
					_ = a.gates.Drain("s1", "of the earlier process", time.Minute)
				}
				w.edit(func(l *kube.Lease) { l.Holder = "b_u" })
				a = w.start("a")
				a.gates.connect(a.gates.shim("s1").report)
				w.within(time.Second, "child is dead", a.stopped)
				assert.Equal(t, []time.Duration{0}, a.gates.left())
			})
		})
	}
}

// A mutating webhook of another product may shorten the duration in each write of a Lease. The standbys
// then wait for less time than the holder's deadline.
func TestShortenedDurationEndsAHoldAtOnce(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a, b := w.pair()
		w.server.shortens(2)
		w.within(6*time.Second, "child is dead", a.stopped)
		assert.Equal(t, []string{show.ReasonLost}, a.gates.told())
		assert.Equal(t, []time.Duration{0}, a.gates.left())
		before := w.server.requests()
		w.pass(2 * time.Minute)
		assert.False(t, a.running("s1") || b.running("s2"), "no pod has a safe deadline")
		assert.LessOrEqual(t, w.server.requests()-before, 2*2*120, "two requests a second for each pod")
		w.server.shortens(0)
		w.within(time.Minute, "a child runs", func() bool { return a.running("s1") || b.running("s2") })
	})
}
