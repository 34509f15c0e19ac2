// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/ends"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/api"
)

func TestSlotIsReleasedWhenTheChildEnds(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.start("a")
		w.pass(time.Minute)
		assert.Empty(t, w.holder(), "nobody waits, so nobody contends")

		a.connect("s1")
		w.within(time.Second, "child runs", func() bool { return a.running("s1") })
		assert.Equal(t, a.identity(), w.holder())
		grant := a.gates.given()[0]
		require.Len(t, grant.Slots.List(), 1)
		assert.Equal(t, boot, grant.BootID)
		assert.Equal(t, grant.Hold, w.server.lease(theSlot).Annotations[api.HoldAnnotation])

		w.pass(5 * time.Minute)
		l := w.server.lease(theSlot)
		assert.Equal(t, grant.Slots.List()[0].Token, l.Annotations[api.TokenAnnotation], "the token stays the acquiring write's")
		assert.True(t, a.running("s1"))
		assert.Equal(t, 1, l.Transitions)

		a.gates.end("s1")
		w.within(100*time.Millisecond, "released", func() bool { return w.holder() == "" })
		l = w.server.lease(theSlot)
		assert.NotContains(t, l.Annotations, api.HoldAnnotation)
		assert.NotContains(t, l.Annotations, api.ServingAnnotation)
	})
}

func TestStandbyAcquiresAReleasedSlotAtOnce(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a, b := w.pair()
		a.gates.end("s1")
		w.pass(0)
		assert.True(t, b.running("s2"), "no timer is in between")
	})
}

func TestYieldHandsTheSlotToAStandby(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a, b := w.start("a"), w.start("b")
		a.connect("s1").stop = 25 * time.Second
		w.within(time.Second, "child runs", func() bool { return a.running("s1") })
		b.connect("s2")
		w.pass(time.Second)
		a.agent.Yield()
		w.within(100*time.Millisecond, "draining", func() bool { return a.gates.phase("s1") == gate.Draining })
		w.pass(24 * time.Second)
		assert.Equal(t, gate.Draining, a.gates.phase("s1"), "the whole grace, longer than the budget's drain")
		w.within(2*time.Second, "handed over", func() bool { return b.running("s2") })
		assert.Equal(t, gate.Waiting, a.gates.phase("s1"))
		b.gates.end("s2")
		w.within(time.Second, "back again", func() bool { return a.running("s1") })
	})
}

// migrates gives a pod a gated init container.
func migrates(c *Config) {
	c.InitContainers = []string{"migrate"}
	c.Granted = func(_, _ string) bool { return false }
}

// succeed ends the child of an init container with exit code 0. Then the shim dies.
func (g *gates) succeed(id gate.ShimID) {
	g.report(id, func(r *gate.Report) { r.Phase, r.Completed = gate.Ended, true })
	close(g.shims[id].ended)
	g.report(id, func(r *gate.Report) { r.Connected, r.Dead = false, true })
}

// fail ends the child of a shim with another exit code than 0, without an order to drain.
func (g *gates) fail(id gate.ShimID) {
	g.report(id, func(r *gate.Report) { r.Phase, r.Failed = gate.Ended, true })
	close(g.shims[id].ended)
	g.report(id, func(r *gate.Report) { r.Connected, r.Dead = false, true })
}

func TestAgentReleasesSlotIfApplicationNeverStarts(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a, b := w.start("a", migrates), w.start("b")
		a.gates.connect(gate.Report{Shim: "s1", Container: "migrate"})
		w.within(time.Second, "init container runs", func() bool { return a.running("s1") })
		b.connect("s9")
		a.gates.succeed("s1")
		w.pass(ends.StartsWithin - time.Second)
		assert.False(t, b.running("s9"))
		w.within(2*time.Second, "given up", func() bool { return b.running("s9") })
		w.pass(time.Second)
		assert.Contains(t, w.server.told(), ends.NotStarted.Reason)
	})
}

// told returns the reasons of all Events so far, of all pods.
func (s *server) told() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var reasons []string
	for _, e := range s.events {
		reasons = append(reasons, e.Reason)
	}
	return reasons
}

// The machine may be paused between two containers of a pod. Then no shim lives that could
// report the leap, and another pod may have acquired the slot.
func TestLeapBetweenContainersDelaysTheNextGrant(t *testing.T) {
	simulate(t, func(w *world) {
		leaps := make(chan struct{})
		w.free(theSlot)
		a := w.start("a", migrates, func(c *Config) { c.Leaps = leaps })
		a.gates.connect(gate.Report{Shim: "s1", Container: "migrate"})
		w.within(time.Second, "init container runs", func() bool { return a.running("s1") })
		w.pass(time.Second)
		a.gates.succeed("s1")
		w.pass(time.Second)
		a.link.set(func(l *link) { l.cut = true })
		leaps <- struct{}{}
		a.connect("s2")
		w.pass(time.Second)
		assert.Equal(t, gate.Waiting, a.gates.phase("s2"), "no renewal has followed the leap")
		a.link.set(func(l *link) { l.cut = false })
		w.within(10*time.Second, "application runs", func() bool { return a.running("s2") })
	})
}

func TestAgentReturnsTheErrorOfGateOrLoop(t *testing.T) {
	broken := errors.New("broken")
	ends := func(err error) func(context.Context) error { return func(context.Context) error { return err } }
	lasts := func(err error) func(context.Context) error {
		return func(ctx context.Context) error { <-ctx.Done(); return err }
	}
	for name, test := range map[string]struct {
		gate, loop func(context.Context) error
		want       error
	}{
		"gate ends":          {ends(nil), lasts(context.Canceled), nil},
		"gate fails":         {ends(broken), lasts(context.Canceled), broken},
		"loop ends":          {lasts(nil), ends(nil), nil},
		"loop fails":         {lasts(nil), ends(broken), broken},
		"gate fails on stop": {lasts(broken), ends(nil), broken},
		"loop fails on stop": {ends(nil), lasts(broken), broken},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				assert.Equal(t, test.want, Serve(t.Context(), test.gate, test.loop))
			})
		})
	}
}

// With the gate "pod" the kubelet stops the application only after the agent's process has
// ended. So the process must not wait for a blocked loop.
func TestAgentReturnsGateErrorDespiteABlockedLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken, blocked := errors.New("broken"), make(chan struct{})
		defer close(blocked)
		loop := func(context.Context) error { <-blocked; return nil }
		assert.Equal(t, broken, Serve(t.Context(), func(context.Context) error { return broken }, loop))
	})
}
