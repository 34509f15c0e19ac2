// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/show"
	"github.com/metaparticle-io/metaparticle/api"
)

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

func TestHoldLastsFromInitContainerToApplication(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a, b := w.start("a", migrates), w.start("b")
		a.gates.connect(gate.Report{Shim: "s1", Container: "migrate"})
		w.within(time.Second, "init container runs", func() bool { return a.running("s1") })
		b.connect("s9")
		w.pass(time.Minute)
		assert.NotContains(t, w.server.lease(theSlot).Annotations, api.ServingAnnotation, "nobody serves yet")
		hold := a.gates.hold("s1")
		a.gates.succeed("s1")
		w.pass(startsWithin - time.Second)
		assert.Equal(t, a.identity(), w.holder(), "while the image is pulled")
		assert.Equal(t, gate.Waiting, b.gates.phase("s9"))
		a.connect("s2")
		w.within(time.Second, "application runs", func() bool { return a.running("s2") })
		assert.Equal(t, hold, a.gates.hold("s2"))
		assert.Equal(t, a.gates.given()[0].Slots, a.gates.shim("s2").report.Slots, "one token")
		w.pass(time.Minute)
		assert.Contains(t, w.server.lease(theSlot).Annotations, api.ServingAnnotation)
		a.gates.end("s2")
		w.within(time.Second, "handed over", func() bool { return b.running("s9") })
	})
}

func TestStartTimeoutBeginsAnewForEachContainer(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.start("a", migrates, func(c *Config) {
			c.InitContainers = []string{"migrate", "seed"}
		})
		a.gates.connect(gate.Report{Shim: "s1", Container: "migrate"})
		w.within(time.Second, "first runs", func() bool { return a.running("s1") })
		a.gates.succeed("s1")
		w.pass(startsWithin - time.Second)
		a.gates.connect(gate.Report{Shim: "s2", Container: "seed"})
		w.within(time.Second, "second runs", func() bool { return a.running("s2") })
		hold := a.gates.hold("s2")
		w.pass(time.Minute)
		a.gates.succeed("s2")
		w.pass(startsWithin - time.Second)
		a.connect("s3")
		w.within(time.Second, "application runs", func() bool { return a.running("s3") })
		assert.Equal(t, hold, a.gates.hold("s3"))
	})
}

func TestAgentReleasesSlotIfApplicationNeverStarts(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a, b := w.start("a", migrates), w.start("b")
		a.gates.connect(gate.Report{Shim: "s1", Container: "migrate"})
		w.within(time.Second, "init container runs", func() bool { return a.running("s1") })
		b.connect("s9")
		a.gates.succeed("s1")
		w.pass(startsWithin - time.Second)
		assert.False(t, b.running("s9"))
		w.within(2*time.Second, "given up", func() bool { return b.running("s9") })
		w.pass(time.Second)
		assert.Contains(t, w.server.told(), show.ReasonNotStarted)
	})
}

// If the loop is slow, the success of an init container and the death of its shim come in one
// report.
func TestHoldSurvivesInitContainersSuccessAndShimDeath(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.start("a", migrates)
		a.gates.connect(gate.Report{Shim: "s1", Container: "migrate"})
		w.within(time.Second, "init container runs", func() bool { return a.running("s1") })
		hold := a.gates.hold("s1")
		a.gates.report("s1", func(r *gate.Report) { r.Phase, r.Completed, r.Connected, r.Dead = gate.Ended, true, false, true })
		close(a.gates.shims["s1"].ended)
		w.pass(time.Minute)
		assert.Equal(t, a.identity(), w.holder(), "the application is on its way")
		a.connect("s2")
		w.within(time.Second, "application runs", func() bool { return a.running("s2") })
		assert.Equal(t, hold, a.gates.hold("s2"))
	})
}

func TestStoppedOrYieldingAgentReleasesSlotBetweenContainers(t *testing.T) {
	for name, end := range map[string]func(a *pod){
		"pod deleted": func(a *pod) { close(a.stop) },
		"yield":       func(a *pod) { a.agent.Yield() },
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				w.free(theSlot)
				a := w.start("a", migrates)
				a.gates.connect(gate.Report{Shim: "s1", Container: "migrate"})
				w.within(time.Second, "init container runs", func() bool { return a.running("s1") })
				a.gates.succeed("s1")
				w.pass(10 * time.Second)
				assert.Equal(t, a.identity(), w.holder())
				end(a)
				w.within(time.Second, "released", func() bool { return w.holder() == "" })
			})
		})
	}
}

func TestFailureOfAnInitContainerReleasesTheSlot(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a, b := w.start("a", migrates), w.start("b")
		a.gates.connect(gate.Report{Shim: "s1", Container: "migrate"})
		w.within(time.Second, "init container runs", func() bool { return a.running("s1") })
		b.connect("s9")
		w.pass(time.Second)
		a.gates.end("s1") // the child ends with another exit code than 0
		w.within(time.Second, "handed over", func() bool { return b.running("s9") })
	})
}

func TestRestartedAgentKeepsHoldGrantedToInitContainer(t *testing.T) {
	for name, c := range map[string]struct {
		noted    func(running string) string
		released bool
	}{
		"no note":                      {noted: func(string) string { return "" }, released: true},
		"its shim may still be alive":  {noted: func(running string) string { return running }},
		"it may have been, of another": {noted: func(string) string { return "earlier" }, released: true},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				w.free(theSlot)
				a := w.start("a", migrates)
				a.connect("s1")
				w.within(time.Second, "application runs", func() bool { return a.running("s1") })
				w.pass(time.Second)
				a.kill()
				noted := c.noted(a.gates.hold("s1"))
				a = w.start("a", func(p *Config) {
					p.Granted = func(container, hold string) bool { return container == "migrate" && noted == hold }
				})
				a.gates.connect(a.gates.shim("s1").report)
				w.pass(20 * time.Second)
				assert.True(t, a.running("s1"), "resumed")
				a.gates.end("s1")
				w.pass(time.Second)
				assert.Equal(t, c.released, w.holder() == "")
			})
		})
	}
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
