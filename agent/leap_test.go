// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"math/rand/v2"
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
func (w *world) writes() int { return len(w.server.Requests("put")) }

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

func TestRenewalSentBeforeALeapPermitsNoGrant(t *testing.T) {
	t.Run("its answer comes later", simulated(func(t *testing.T, w *world) {
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
	}))
	t.Run("its answer is lost", simulated(func(t *testing.T, w *world) {
		a := settled(w)
		a.link.set(func(l *link) { l.lose = true })
		a.writesAt(w)
		a.leaps("s1", 1)
		w.within(2*time.Second, "answered", func() bool { _, ok := a.answer(); return ok })
		g, _ := a.answer()
		assert.Greater(t, g.Deadline, w.clock()+24*time.Second)
	}))
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

// After each leap the agent soon grants again, even if several leaps coincide with lost answers.
// The pod has two containers and two slots.
func TestAgentExtendsGrantsSoonAfterEveryLeap(t *testing.T) {
	if testing.Short() {
		t.Skip("slow with the race detector")
	}
	for seed := range uint64(200) {
		simulate(t, func(w *world) {
			rng := rand.New(rand.NewPCG(seed, 1))
			d := []time.Duration{10 * time.Second, 30 * time.Second, time.Minute}[rng.IntN(3)]
			w.free("lock.a", "lock.b")
			a := w.start("a", func(c *Config) {
				c.LeaseDuration, c.Slots, c.Containers = d, []string{"lock.a", "lock.b"}, []string{"app", "side"}
			})
			late := make(chan struct{})
			if rng.IntN(2) == 0 {
				a.link.set(func(l *link) { l.withheld = late })
			}
			a.connect("s1").stop = time.Hour
			a.gates.connect(gate.Report{Shim: "s2", Container: "side"}).stop = time.Hour
			leaps := 0
			leap := func() {
				leaps++
				for _, id := range []gate.ShimID{"s1", "s2"} {
					a.leaps(id, leaps)
					w.pass(time.Duration(rng.IntN(3)) * 10 * time.Millisecond)
				}
			}
			answered := func() bool {
				for _, id := range []gate.ShimID{"s1", "s2"} {
					if s := a.gates.shim(id); s.grant.Leap != leaps || s.report.Phase != gate.Running {
						return false
					}
				}
				return true
			}
			w.pass(time.Duration(rng.IntN(100)) * time.Millisecond)
			leap()
			close(late)
			took := w.within(3*time.Second, "first leap answered", answered)
			for range 5 {
				w.pass(time.Duration(rng.IntN(12000)) * time.Millisecond)
				if rng.IntN(2) == 0 {
					a.link.set(func(l *link) { l.lose = true })
				}
				for range 1 + rng.IntN(3) {
					leap()
				}
				took = max(took, w.within(d/12+4*time.Second, "answered", answered))
			}
			if len(a.gates.told()) > 0 {
				t.Errorf("seed %d: %v", seed, a.gates.told())
			}
		})
	}
}

// A machine of a pod with the gate "pod" is paused for some time. Then the machine's wall clock is
// set forward by that time, and the API server answers nothing more.
func TestPauseBringsPodGatesDrainForward(t *testing.T) {
	const usual = 15 * time.Second // from the last renewal to the drain, if the lease duration is 30 s
	for name, c := range map[string]struct {
		steps          []time.Duration
		pod, reachable bool
		drain          time.Duration // zero for none
	}{
		"short pause":           {steps: []time.Duration{5 * time.Second}, pod: true, drain: usual - 5*time.Second},
		"two pauses":            {steps: []time.Duration{3 * time.Second, 4 * time.Second}, pod: true, drain: usual - 7*time.Second},
		"pause, then step back": {steps: []time.Duration{5 * time.Second, -time.Hour}, pod: true, drain: usual - 5*time.Second},
		"step back":             {steps: []time.Duration{-time.Hour}, pod: true, drain: usual},
		"with a shim":           {steps: []time.Duration{5 * time.Second}, drain: usual},
		"renewal succeeds":      {steps: []time.Duration{time.Hour}, pod: true, reachable: true},
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			var ahead time.Duration
			leaps := make(chan struct{})
			a := stubborn(w, func(cfg *Config) {
				cfg.KubeletStops, cfg.Leaps = c.pod, leaps
				cfg.Ahead = func() time.Duration { return ahead }
			})
			w.pass(time.Minute)
			a.writesAt(w)
			renewed := w.clock()
			a.link.set(func(l *link) { l.cut = !c.reachable })
			for _, step := range c.steps {
				ahead += step
				leaps <- struct{}{}
				synctest.Wait()
			}
			if c.reachable {
				w.pass(time.Minute)
				assert.Empty(t, a.gates.told())
				return
			}
			w.within(time.Minute, "drained", func() bool { return len(a.gates.told()) > 0 })
			assert.InDelta(t, c.drain.Seconds(), (w.clock() - renewed).Seconds(), .1)
		}))
	}
}

// After the pause of an hour, the agent waits for the answer to its renewal, but not longer than
// a request may take.
func TestLongPauseLeavesTimeForOneAnswer(t *testing.T) {
	simulate(t, func(w *world) {
		var ahead time.Duration
		leaps := make(chan struct{})
		a := stubborn(w, func(c *Config) {
			c.KubeletStops, c.Leaps = true, leaps
			c.Ahead = func() time.Duration { return ahead }
		})
		w.pass(time.Minute)
		a.link.set(func(l *link) { l.cut = true })
		ahead = time.Hour
		leaps <- struct{}{}
		took := w.within(time.Minute, "drained", func() bool { return len(a.gates.told()) > 0 })
		assert.InDelta(t, a.agent.state.self.Budget.RequestTimeout.Seconds(), took.Seconds(), .1)
	})
}
