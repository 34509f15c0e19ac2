// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

func skips(c *Config) { c.OnBusy = api.OnBusySkip }

func waitsAtMost(d time.Duration) func(c *Config) {
	return func(c *Config) { c.WaitAtMost = d }
}

// pool gives the pod the slots of a semaphore.
func pool(c *Config) {
	c.Slots, c.Any = []string{api.SemaphoreLease("pool", 0), api.SemaphoreLease("pool", 1)}, true
}

// dismissed reports whether the pod's shim has ended without a child.
func (p *pod) dismissed() bool { return len(p.gates.codes()) > 0 }

// again connects the known shim to a new agent process of its pod.
func (p *pod) again(id gate.ShimID) {
	p.gates.connect(p.gates.shim(id).report)
}

func TestPodSkipsOnceALivingHolderIsSeen(t *testing.T) {
	for name, slots := range map[string]func(c *Config){
		"one slot":                   func(*Config) {},
		"the second of several":      func(c *Config) { c.Slots = []string{"lock.a", theSlot} },
		"all slots of the semaphore": pool,
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				w.free(theSlot, "lock.a", api.SemaphoreLease("pool", 0), api.SemaphoreLease("pool", 1))
				holders := func(c *Config) {
					if slots(c); !c.Any {
						c.Slots = []string{theSlot}
					}
				}
				for _, name := range []string{"a", "a2"} {
					w.start(name, holders).connect("s-" + gate.ShimID(name))
				}
				w.pass(time.Second)
				b := w.start("b", slots, skips)
				b.connect("s2")
				took := w.within(6*time.Second, "the pod skips", b.dismissed)
				assert.NotZero(t, took, "the pod first sees a renewal")
				assert.Equal(t, []int{0}, b.gates.codes())
				assert.Equal(t, CourseSkip, b.config.Course)
				for _, name := range []string{"a", "a2"} {
					if id := gate.ShimID("s-" + name); w.pods[name].running(id) {
						w.pods[name].gates.end(id)
						w.pass(time.Second)
					}
				}
				w.pass(time.Minute)
				assert.Empty(t, b.gates.given(), "a pod that skips never runs")
				for _, slot := range b.config.Slots {
					assert.NotEqual(t, b.identity(), w.server.lease(slot).Holder)
				}
			})
		})
	}
}

func TestSemaphoreWithAFreeSlotCausesNoSkip(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(api.SemaphoreLease("pool", 0), api.SemaphoreLease("pool", 1))
		w.start("a", pool).connect("s1")
		w.pass(time.Second)
		b := w.start("b", pool, skips)
		b.connect("s2")
		w.within(time.Second, "the pod runs", func() bool { return b.running("s2") })
		w.pass(time.Minute)
		assert.Empty(t, b.gates.codes())
	})
}

func TestPodDoesNotSkipForAVanishedHolder(t *testing.T) {
	for name, holder := range map[string]string{"a pod": "gone_u", "enroll": "unknown"} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				w.server.put(&kube.Lease{Name: theSlot, Holder: holder, DurationSeconds: 30})
				b := w.start("b", skips)
				b.connect("s2")
				w.pass(time.Second)
				changed := w.server.lease(theSlot)
				changed.Annotations = map[string]string{"example.com/note": "by a person"}
				w.server.put(&changed)
				w.within(40*time.Second, "the pod runs", func() bool { return b.running("s2") })
				assert.Empty(t, b.gates.codes())
				assert.Equal(t, CourseRun, b.config.Course)
			})
		})
	}
}

func TestPodWhoseApplicationStartedNeverSkips(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		b := w.start("b", skips)
		b.connect("s2")
		w.within(time.Second, "the pod runs", func() bool { return b.running("s2") })
		robbed := w.server.lease(theSlot)
		robbed.Holder = ""
		w.server.put(&robbed)
		a := w.start("a")
		a.connect("s1")
		w.within(time.Minute, "another pod runs", func() bool { return a.running("s1") })
		w.pass(time.Minute)
		b.kill()
		w.start("b")
		b.again("s2")
		w.pass(time.Minute)
		assert.Empty(t, b.gates.codes())
		a.gates.end("s1")
		w.within(time.Minute, "the pod runs again", func() bool { return b.running("s2") })
	})
}

func TestNewAgentProcessKeepsTheDecisionToSkip(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		b := w.start("b", skips, func(c *Config) { c.Course = CourseSkip })
		b.connect("s2")
		w.within(time.Second, "the pod skips", b.dismissed)
		w.pass(time.Second)
		b.connect("s3")
		w.pass(time.Second)
		assert.Len(t, b.gates.codes(), 2)
		assert.Empty(t, b.gates.given())
		assert.Zero(t, w.server.writes, "a pod that skips takes no slot")
	})
}

func TestUnnotedDecisionIsNotMade(t *testing.T) {
	full := errors.New("no space left on device")
	t.Run("skip", func(t *testing.T) {
		simulate(t, func(w *world) {
			w.free(theSlot)
			w.start("a").connect("s1")
			w.pass(time.Second)
			b := w.start("b", skips, func(c *Config) { c.NoteCourse = func(Course) error { return full } })
			b.connect("s2")
			w.pass(time.Minute)
			assert.Empty(t, b.gates.codes())
		})
	})
	t.Run("run", func(t *testing.T) {
		simulate(t, func(w *world) {
			w.free(theSlot)
			b := w.start("b", skips, func(c *Config) { c.NoteCourse = func(Course) error { return full } })
			b.connect("s2")
			a := w.start("a")
			a.connect("s1")
			w.within(time.Minute, "the other pod runs", func() bool { return a.running("s1") })
			assert.Empty(t, b.gates.given())
		})
	})
}

func TestDismissalIsSentOnceForEachWait(t *testing.T) {
	sent := 0
	o := newOrders(Config{Dismiss: func(gate.ShimID, gate.Dismiss) error { sent++; return nil }}, nil)
	r := gate.Report{Shim: "s1", Since: time.Second, Connected: true}
	o.note(gate.Report{}, r)
	for _, since := range []time.Duration{time.Second, time.Second, time.Minute} {
		r.Since = since
		o.dismiss(r, gate.Dismiss{})
	}
	assert.Equal(t, 2, sent, "a shim with a child ignores the order, and may wait again later")
	o.note(gate.Report{}, r)
	o.dismiss(r, gate.Dismiss{})
	assert.Equal(t, 3, sent, "the order may be lost with its connection")
}

func TestContainerEndsWhenItsWaitIsOver(t *testing.T) {
	const most = 10 * time.Minute
	simulate(t, func(w *world) {
		w.free(theSlot)
		w.start("a").connect("s1")
		w.pass(time.Second)
		b := w.start("b", waitsAtMost(most))
		b.connect("s2")
		began := w.clock()
		w.pass(most / 2)
		b.kill()
		w.start("b")
		b.again("s2")
		w.within(most, "the wait is over", b.dismissed)
		assert.InDelta(t, most, w.clock()-began, float64(time.Second), "a new agent process does not prolong the wait")
		assert.Equal(t, []int{api.ExitWaited}, b.gates.codes())
		b.connect("s3")
		w.pass(most - time.Second)
		assert.Len(t, b.gates.codes(), 1, "the next container has a time of its own")
		w.pass(2 * time.Second)
		assert.Len(t, b.gates.codes(), 2)
	})
}

func TestWaitOfARunningContainerDoesNotCount(t *testing.T) {
	const most = time.Minute
	simulate(t, func(w *world) {
		w.free(theSlot)
		b := w.start("b", waitsAtMost(most))
		b.connect("s2")
		w.pass(3 * most)
		assert.True(t, b.running("s2"))
		a := w.start("a")
		a.connect("s1")
		b.agent.Yield()
		w.within(10*time.Second, "another pod runs", func() bool { return a.running("s1") })
		w.pass(most - 15*time.Second)
		assert.Empty(t, b.gates.codes())
		w.within(20*time.Second, "the second wait is over", b.dismissed)
		assert.Equal(t, []int{api.ExitWaited}, b.gates.codes())
	})
}
