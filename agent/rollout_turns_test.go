// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/agent/probe"
	"github.com/metaparticle-io/metaparticle/api"
)

func TestHolderLimitsItsRequestsAboutTheNextLease(t *testing.T) {
	simulate(t, func(w *world) {
		w.first(of(oldRevision)).link.set(func(l *link) { l.idle = 210 * time.Millisecond }) // a proxy ends each watch
		w.pass(time.Minute)
		before := w.about()
		w.pass(10 * time.Minute)
		assert.LessOrEqual(t, w.about()-before, 10*elector.PerMinute)
	})
}

func TestPodAsksEvenIfReadinessOfHolderFlaps(t *testing.T) {
	r := newRollout(Config{
		Pod:    Pod{PodName: "b", PodUID: "u", Revision: newRevision},
		Claims: Claims{Need: api.Need{Slots: []string{theSlot}}, Settings: api.Settings{Readiness: api.ReadinessForward}},
	})
	r.waiting.Failed = true
	asked := false
	for i := range 3600 {
		now, yields := time.Duration(i)*time.Second, api.YieldsLater
		if i%50 >= 47 { // the holder does not serve for the last 3 s of each 50 s
			yields = api.YieldsNow
		}
		v := []elector.View{{Slot: theSlot, Known: true, FreeAt: now + 30*time.Second, Record: &lease.Record{
			UID: "u", Version: "1", Holder: "a_u", Hold: "h", Profile: lease.Profile{Revision: oldRevision},
			Rollout: api.Rollout{Hold: "h", Yields: yields, Proven: oldRevision}.String(),
		}}}
		s := r.standing(now, v, true, stored{}, func(string) bool { return false })
		asked = asked || s.Wish == api.WantsNewer
	}
	assert.True(t, asked)
}

// flaps lets the application serve for 20 s, stop serving for 40 s, and so on, until the hold ends. The
// controller's minReadySeconds are a minute.
func (p *pod) flaps(shim gate.ShimID) {
	began := time.Now()
	for p.running(shim) && time.Since(began) < time.Hour {
		p.world.pass(20 * time.Second)
		p.gates.report(shim, func(r *gate.Report) { r.Starting = true })
		p.world.pass(40 * time.Second)
		p.gates.report(shim, func(r *gate.Report) { r.Starting = false })
	}
	// A turn has a minute for the start, and then time for three proofs of 70 s.
	assert.InDelta(p.world.t, (time.Minute + 3*70*time.Second).Seconds(), time.Since(began).Seconds(), 60)
	p.gates.report(shim, func(r *gate.Report) { r.Phase, r.Hold = gate.Waiting, p.gates.grants[0].Hold })
}

func TestTurnOfAFlappingRevisionEnds(t *testing.T) {
	simulate(t, func(w *world) {
		a, b := w.rolling(func(c *Config) { c.MinReady = time.Minute })
		b.connect("s3")
		w.within(time.Second, "the new child runs", func() bool { return b.running("s3") })
		b.flaps("s3")
		w.within(time.Minute, "the old child runs again", func() bool { return a.running("s1") })
		assert.Equal(t, oldRevision, w.rollout().Proven)
	})
}

// The only old pod crashes, and comes back after a pod of a newer version has taken the free slot. The
// newer version is never proven.
func TestFlappingRevisionWithoutTurnYields(t *testing.T) {
	simulate(t, func(w *world) {
		a, b := w.unyielded(func(c *Config) { c.MinReady = time.Minute })
		b.flaps("s3")
		w.within(time.Minute, "the old child runs again", func() bool { return a.running("s1b") })
		assert.Equal(t, 1, w.rollout().Turns[0].Count)
	})
}

// The application never serves in its turn. The pod loses its hold again and again, because the
// pod's network fails for 18 s of each 45 s.
func TestTurnEndsDespiteLostHolds(t *testing.T) {
	simulate(t, func(w *world) {
		a, b := w.rolling()
		b.gates.slow = true
		b.connect("s3")
		w.within(time.Second, "the turn begins", func() bool { return w.holder() == b.identity() })
		told := 0
		drain := func() {
			if len(b.gates.told()) > told {
				told = len(b.gates.told())
				last := b.gates.grants[len(b.gates.grants)-1].Hold
				b.gates.report("s3", func(r *gate.Report) { r.Phase, r.Hold = gate.Waiting, last })
			}
		}
		began := time.Now()
		for w.holder() == b.identity() && time.Since(began) < time.Hour {
			at := int(time.Since(began)/time.Second) % 45
			b.link.set(func(l *link) { l.cut = at >= 27 })
			w.pass(time.Second)
			drain()
		}
		b.link.set(func(l *link) { l.cut = false })
		assert.Less(t, time.Since(began), 3*time.Minute)
		w.within(time.Minute, "the old child runs again", func() bool { return a.running("s1") })
	})
}

// The only old pod crashes, and its container restarts later than a pod of a newer version takes the
// free slot. The newer version hangs.
func TestOldRevisionServesAgainAfterASingleCrash(t *testing.T) {
	for name, c := range map[string]struct {
		turnFirst bool
		backOff   time.Duration
	}{
		"before the first turn": {false, 2 * time.Second},
		"after a failed turn":   {true, 40 * time.Second},
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			a, b := w.stalled(newPatient("readiness").probed("readiness"))
			if c.turnFirst {
				w.within(3*time.Minute, "the turn begins", func() bool { return w.holder() == b.identity() })
				w.within(3*time.Minute, "the old version serves again", func() bool { return a.running("s1") })
				w.pass(20 * time.Second)
			}
			a.crash("s1")
			w.pass(c.backOff)
			assert.Equal(t, b.identity(), w.holder())
			a.connect("s1b")
			w.within(5*time.Minute, "the old version serves again", func() bool { return a.running("s1b") })
		}))
	}
}

// A Ready pod of the newer version would make the controller delete the last old pod.
func TestUnprovenPodIsNotReadyWithoutATurn(t *testing.T) {
	simulate(t, func(w *world) {
		_, b := w.unyielded()
		w.pass(3 * time.Second)
		b.gates.end("s3")
		w.pass(time.Second)
		assert.Equal(t, []string{"False"}, b.readiness())
	})
}

// unyielded starts a pod of the old revision, which crashes, and a pod of the newer revision, which takes the free slot.
// Then the old pod competes again.
func (w *world) unyielded(newer ...func(c *Config)) (a, b *pod) {
	w.free(theSlot, nextLease)
	a = w.start("a", of(oldRevision))
	a.connect("s1")
	w.pass(api.TurnRest / 2)
	a.crash("s1")
	w.pass(time.Second)
	b = w.start("b", append(newer, of(newRevision))...)
	b.connect("s3")
	w.pass(2 * time.Second)
	assert.Equal(w.t, b.identity(), w.holder())
	a.connect("s1b")
	return a, b
}

// stalled starts a pod of the old revision, and a pod of the newer revision that waits for its turn.
func (w *world) stalled(newer ...func(c *Config)) (a, b *pod) {
	w.free(theSlot, nextLease)
	a = w.start("a", of(oldRevision))
	a.connect("s1")
	w.pass(api.TurnRest / 2)
	b = w.start("b", append(newer, of(newRevision))...)
	b.connect("s3")
	w.pass(5 * time.Second)
	return a, b
}

// crash ends the child of the shim, and lets the shim report that its child is dead.
func (p *pod) crash(shim gate.ShimID) {
	p.gates.end(shim)
	p.gates.report(shim, func(r *gate.Report) { r.Dead = true })
}

func TestTurnOutlastsInitialDelayOfReadinessProbe(t *testing.T) {
	simulate(t, func(w *world) {
		_, b := w.rolling(func(c *Config) {
			c.Probes = map[string]api.Probes{"app": {Readiness: &api.Probe{Handler: api.Handler{TCPSocket: &api.TCPSocketAction{Port: 80}}, InitialDelaySeconds: 75, PeriodSeconds: 10, TimeoutSeconds: 1, SuccessThreshold: 1, FailureThreshold: 3}}}
			c.Probe = func(context.Context, api.Handler, string, time.Duration) probe.Result {
				return probe.Result{Outcome: probe.Success}
			}
		})
		b.connect("s3")
		for range 3 * 60 * 60 {
			if w.pass(time.Second); b.ready() == "True Holding" {
				break
			}
		}
		assert.Equal(t, "True Holding", b.ready(), "%q", b.gates.told())
	})
}

// version is how the application of a revision fails. The zero value serves at once, and never exits.
type version struct{ serves, exits time.Duration }

// fragile is a pod whose application fails as its version does. The kubelet restarts the application after 20 s.
type fragile struct {
	*pod
	version
	shim gate.ShimID
}

func (w *world) fragile(name string, r api.Revision, v version) *fragile {
	f := &fragile{pod: w.start(name, of(r)), version: v}
	f.restart()
	return f
}

func (f *fragile) restart() {
	f.shim = gate.ShimID(fmt.Sprint(f.config.PodName, len(f.gates.shims)))
	f.gates.connect(gate.Report{Shim: f.shim, Container: "app", Starting: f.serves > 0})
}

// step lets the application begin to serve, exit or start again, if it is time. The result is the time until the
// next step.
func (f *fragile) step() time.Duration {
	shim := f.gates.shim(f.shim)
	runs, age := shim.report.Phase == gate.Running, time.Duration(0)
	if runs {
		age = f.world.clock() - shim.ran[len(shim.ran)-1][0]
	}
	switch {
	case shim.report.Dead && f.world.clock() >= shim.report.Since+20*time.Second:
		f.restart()
	case runs && f.exits > 0 && age >= f.exits:
		f.crash(f.shim)
	case runs && shim.report.Starting && age >= f.serves:
		f.gates.report(f.shim, func(r *gate.Report) { r.Starting = false })
	case shim.report.Phase == gate.Waiting && !shim.report.Starting && f.serves > 0:
		f.gates.report(f.shim, func(r *gate.Report) { r.Starting = true })
	}
	if runs && f.exits > 0 {
		return time.Second
	}
	return api.TurnProof / 2
}

func TestBrokenRevisionRarelyStopsTheOldRevision(t *testing.T) {
	if testing.Short() {
		t.Skip("slow with the race detector")
	}
	const never = 24 * time.Hour
	for name, c := range map[string]struct {
		olds, news int
		old, newer version
		most       int // stops in the first hour
		serves     bool
	}{
		"exits at once":                  {olds: 1, news: 1, newer: version{exits: time.Second}, most: 4},
		"exits before it is proven":      {olds: 3, news: 1, newer: version{serves: time.Second, exits: 9 * time.Second}, most: 4},
		"never serves":                   {olds: 1, news: 1, newer: version{serves: never}, most: 4},
		"three pods":                     {olds: 3, news: 3, newer: version{exits: time.Second}, most: 4},
		"serves late, exits":             {olds: 3, news: 2, newer: version{serves: 50 * time.Second, exits: 55 * time.Second}, most: 4},
		"exits once it is proven":        {olds: 2, news: 2, newer: version{serves: time.Second, exits: time.Minute}, most: 5, serves: true},
		"the old version is broken, too": {olds: 2, news: 2, old: version{serves: never}, newer: version{serves: never}, most: 4},
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			w.free(theSlot, nextLease)
			var olds, news []*fragile
			for i := range c.olds {
				olds = append(olds, w.fragile(fmt.Sprint("a", i), oldRevision, c.old))
				w.pass(time.Second)
			}
			w.pass(api.TurnRest)
			for i := range c.news {
				news = append(news, w.fragile(fmt.Sprint("b", i), newRevision, c.newer))
			}
			stopsWithin := func(d time.Duration) (stops int) {
				for end := w.clock() + d; w.clock() < end; {
					next := time.Minute
					for _, one := range append(olds, news...) {
						next = min(next, one.step())
					}
					w.pass(next)
				}
				for _, one := range olds {
					stops += len(one.gates.told())
				}
				return stops
			}
			stops := stopsWithin(time.Hour)
			assert.Positive(t, stops)
			assert.LessOrEqual(t, stops, c.most)
			assert.LessOrEqual(t, stopsWithin(time.Hour)-stops, 1)
			for _, one := range news {
				assert.Equal(t, c.serves, slices.Contains(one.readiness(), "True"), "a rollout would go on")
			}
			for _, one := range olds {
				assert.True(t, c.old.serves > 0 || strings.HasPrefix(one.ready(), "True"), "the old version serves")
			}
		}))
	}
}
