// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/turn"
	"github.com/metaparticle-io/metaparticle/api"
)

// replacing gives the pod a strict controller.
func replacing(c *Config) { c.ReplacesUnready = true }

// The method "returning" starts an old holder, and waits until its revision is proven. From then on
// the old application fails its readiness probe, even after a restart. Then the method adds a
// new pod, and waits until that pod's child runs in its turn. The caller ends the turn.
func (w *world) returning(change ...func(c *Config)) (a, b *pod, app *patient) {
	w.free(theSlot, nextLease)
	app = newPatient()
	a = w.start("a", append(change, of(oldRevision), app.probed("readiness"), replacing)...)
	a.connect("s1")
	w.pass(turn.Rest + time.Second)
	require.Equal(w.t, "True Holding", a.ready())
	app.be(true, "readiness")
	b = w.start("b", of(newRevision), replacing, newPatient("readiness").probed("readiness"))
	b.connect("s3")
	w.within(4*time.Second, "the new child runs", func() bool { return b.running("s3") })
	return a, b, app
}

// The application's stop and its start each take longer than show.Handover.
func TestOldPodsStayReadyDespiteASlowApplication(t *testing.T) {
	const stops, starts = 110 * time.Second, 45 * time.Second
	simulate(t, func(w *world) {
		w.free(theSlot, nextLease)
		app := newPatient()
		a := w.start("a", of(oldRevision), app.probed("readiness"), replacing, func(c *Config) { c.Grace = 2 * time.Minute })
		a.connect("s1").stop = stops
		w.within(time.Second, "the old child runs", func() bool { return a.running("s1") })
		standby := w.start("a2", of(oldRevision), replacing, func(c *Config) { c.Grace = 2 * time.Minute })
		standby.connect("s2")
		w.pass(turn.Rest + time.Second)
		seen := len(a.link.patches) - 1
		app.be(true, "readiness")
		b := w.start("b", of(newRevision), replacing)
		b.connect("s3")
		w.within(stops+time.Second, "the new child runs", func() bool { return b.running("s3") })
		late := w.start("a3", of(oldRevision), replacing, func(c *Config) { c.Grace = time.Second })
		w.pass(time.Second)
		require.Equal(t, "True", late.readiness()[len(late.readiness())-1])
		b.gates.end("s3")
		w.within(time.Second, "the old child runs again", func() bool { return a.running("s1") })
		w.pass(starts)
		app.be(false, "readiness")
		w.pass(turn.Rest / 2)
		a.link.patches = a.link.patches[seen:]
		assert.Equal(t, []string{"True"}, a.readiness())
		assert.Equal(t, []string{"True"}, standby.readiness())
		assert.Equal(t, []string{"True"}, late.readiness())
	})
}

// The application's start before the yield and its stop after the yield together take longer
// than show.Handover.
func TestOldPodYieldingDuringItsStartStaysReady(t *testing.T) {
	const starts, stops, grace = 45 * time.Second, 115 * time.Second, 2 * time.Minute
	for name, yields := range map[string]func(w *world, a *pod){
		"to a newer revision": func(w *world, _ *pod) {
			w.start("c", of(api.Revision{Workload: oldRevision.Workload, Number: 8, Hash: "newer"}), replacing).connect("s4")
		},
		"by hand": func(w *world, a *pod) {
			w.start("a2", of(oldRevision), replacing).connect("s2")
			w.pass(time.Second)
			a.agent.Yield()
		},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				a, b, _ := w.returning(func(c *Config) { c.Grace = grace })
				b.gates.end("s3")
				w.within(time.Second, "the old child runs again", func() bool { return a.running("s1") })
				w.pass(starts)
				require.Equal(t, "True Starting", a.ready())
				seen := len(a.link.patches) - 1
				a.gates.mu.Lock()
				a.gates.shims["s1"].stop = stops
				a.gates.mu.Unlock()
				yields(w, a)
				w.within(grace, "another pod holds", func() bool { return w.holder() != a.identity() && w.holder() != "" })
				w.pass(5 * time.Second)
				a.link.patches = a.link.patches[seen:]
				assert.Equal(t, []string{"True"}, a.readiness())
			})
		})
	}
}

// The start of the old revision's application takes longer than the shortest turn.
func TestStandbyStaysReadyDuringASlowApplicationStart(t *testing.T) {
	const starts = 4 * time.Minute
	simulate(t, func(w *world) {
		w.free(theSlot, nextLease)
		app := newPatient("readiness")
		a := w.start("a", of(oldRevision), app.probed("readiness"), replacing)
		a.connect("s1")
		w.within(time.Second, "the child runs", func() bool { return a.running("s1") })
		w.pass(starts)
		app.be(false, "readiness")
		w.pass(turn.Rest + time.Second)
		require.Equal(t, "True Holding", a.ready())
		standby := w.start("a2", of(oldRevision), replacing)
		standby.connect("s2")
		w.pass(time.Second)
		seen := len(standby.link.patches) - 1
		app.be(true, "readiness")
		b := w.start("b", of(newRevision), replacing)
		b.connect("s3")
		w.within(4*time.Second, "the new child runs", func() bool { return b.running("s3") })
		b.gates.end("s3")
		w.within(time.Second, "the old child runs again", func() bool { return a.running("s1") })
		w.pass(starts)
		app.be(false, "readiness")
		w.pass(turn.Rest)
		standby.link.patches = standby.link.patches[seen:]
		assert.Equal(t, []string{"True"}, standby.readiness())
	})
}

func TestUnprovenRevisionsPodFailsReadinessProbesAtStart(t *testing.T) {
	simulate(t, func(w *world) {
		a, b, app := w.returning()
		w.pass(time.Second)
		assert.NotEqual(t, http.StatusOK, b.kubelet(api.ReadinessProbe))
		b.gates.end("s3")
		w.within(time.Second, "the old child runs again", func() bool { return a.running("s1") })
		w.pass(time.Second)
		assert.Equal(t, http.StatusOK, a.kubelet(api.ReadinessProbe))
		app.be(false, "readiness")
		w.pass(time.Second)
		app.be(true, "readiness")
		assert.NotEqual(t, http.StatusOK, a.kubelet(api.ReadinessProbe), "the application has served")
	})
}

// Under a strict controller, only a pod that takes turns and whose revision is proven may be Ready
// without an application.
func TestUnsparedPodIsUnreadyWhileItStops(t *testing.T) {
	const stops = 5 * time.Minute
	slow := func(c *Config) { c.Grace = 2 * stops }
	for name, start := range map[string]func(w *world) *pod{
		"in its turn": func(w *world) *pod {
			w.start("a", of(oldRevision), replacing).connect("s1")
			w.pass(turn.Rest + time.Second)
			return w.start("b", of(newRevision), replacing, slow, func(c *Config) { c.MinReady = 30 * time.Second })
		},
		"readiness is holder": func(w *world) *pod {
			return w.start("b", of(oldRevision), replacing, slow, func(c *Config) { c.Readiness = api.ReadinessHolder })
		},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				w.free(theSlot, nextLease)
				b := start(w)
				b.connect("s3").stop = stops
				w.within(4*time.Second, "the child runs", func() bool { return b.running("s3") })
				w.pass(turn.Proof + 2*time.Second)
				require.Equal(t, "True Holding", b.ready())
				b.agent.Yield()
				w.pass(stops / 2)
				assert.Equal(t, "False Draining", b.ready())
				w.pass(stops)
			})
		})
	}
}
