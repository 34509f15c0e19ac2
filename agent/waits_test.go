// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

func skips(c *Config) { c.OnBusy = api.OnBusySkip }

func waitsAtMost(d time.Duration) func(c *Config) {
	return func(c *Config) { c.WaitAtMost = d }
}

// pool gives the pod a semaphore of two slots.
func pool(c *Config) {
	c.Slots, c.Any = []string{api.SemaphoreLease("pool", 0), api.SemaphoreLease("pool", 1)}, true
}

// dismissed reports whether the pod's shim has ended without a child.
func (p *pod) dismissed() bool { return len(p.gates.codes()) > 0 }

// The method "again" connects a known shim of the pod to the pod's new agent process.
func (p *pod) again(id gate.ShimID) {
	p.gates.connect(p.gates.shim(id).report)
}

func TestPodSkipsAfterSeeingALivingHolder(t *testing.T) {
	for name, slots := range map[string]func(c *Config){
		"one slot":                   func(*Config) {},
		"the second of several":      func(c *Config) { c.Slots = []string{"lock.a", theSlot} },
		"all slots of the semaphore": pool,
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
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
			took := w.within(11*time.Second, "the pod skips", b.dismissed)
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
		}))
	}
}

func TestPodDoesNotSkipForAVanishedHolder(t *testing.T) {
	for name, holder := range map[string]string{"a pod": "gone_u", "enroll": "unknown"} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
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
		}))
	}
}

func TestPodNeverSkipsForHolderOfItsJob(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		of := func(job string) func(c *Config) { return func(c *Config) { c.Job = job } }
		a := w.start("a", skips, of("job-1"))
		a.connect("s1")
		w.within(time.Second, "the first pod runs", func() bool { return a.running("s1") })
		same, other := w.start("b", skips, of("job-1")), w.start("c", skips, of("job-2"))
		same.connect("s2")
		other.connect("s3")
		w.within(10*time.Second, "another Job's pod skips", other.dismissed)
		w.pass(time.Minute)
		assert.Empty(t, same.gates.codes())
		a.gates.end("s1")
		w.within(10*time.Second, "the next pod of the Job runs", func() bool { return same.running("s2") })
	})
}

// dismissals are shims that get each dismissal by a function.
type dismissals struct {
	Shims

	dismiss func(gate.ShimID, gate.Dismiss) error
}

func (d dismissals) Dismiss(id gate.ShimID, order gate.Dismiss) error { return d.dismiss(id, order) }

// The agent adds an Event only for the first dismissal of a wait.
func TestRepeatedDismissalOfWaitingShimWritesNoEvent(t *testing.T) {
	o := newOrders(Config{Outside: Outside{Shims: dismissals{dismiss: func(gate.ShimID, gate.Dismiss) error { return nil }}}}, nil)
	r := gate.Report{Shim: "s1", Since: time.Second, Connected: true}
	o.learn(gate.Report{}, r)
	for _, c := range []struct {
		at, since time.Duration
		first     bool
	}{
		{at: time.Minute, since: time.Second, first: true},
		{at: time.Minute + dismissAgain/2, since: time.Second},
		{at: time.Minute + dismissAgain, since: time.Second},
		{at: time.Hour, since: 30 * time.Minute, first: true}, // a later Since means a new wait: the shim has had a child since the last dismissal
	} {
		r.Since = c.since
		first, again := o.dismiss(c.at, r, gate.Dismiss{})
		assert.Equal(t, c.first, first)
		assert.Greater(t, again, c.at)
	}
	o.learn(gate.Report{}, r)
	first, again := o.dismiss(time.Hour+time.Millisecond, r, gate.Dismiss{})
	assert.False(t, first, "a new connection begins no new wait")
	assert.Equal(t, time.Hour+time.Millisecond+dismissAgain, again, "and gets the order at once")
}

func TestContainerEndsWhenItsBoundedWaitExpires(t *testing.T) {
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

// A suspended agent receives nothing. The kernel keeps the events that arrive meanwhile, and the
// agent handles these events when the agent continues. So a pod may see a renewal long after the
// death of the holder.
func TestSuspendedPodNeverSkipsForADeadHolder(t *testing.T) {
	for name, silent := range map[string]time.Duration{
		"after the last renewal":   time.Second,
		"after a silent holder":    9 * time.Second,
		"just before the takeover": 29 * time.Second,
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			w.free(theSlot)
			a := w.start("a")
			a.connect("s1")
			w.within(time.Second, "the holder runs", func() bool { return a.running("s1") })
			w.pass(2 * time.Second)
			renewed := w.server.lease(theSlot)
			a.kill()
			a.gates.end("s1")
			runs := make(chan struct{}, 1) // the channel is empty while the agent is suspended
			runs <- struct{}{}
			b := w.start("b", skips, func(c *Config) {
				c.Clock = func() time.Duration {
					<-runs
					defer func() { runs <- struct{}{} }()
					return w.clock()
				}
			})
			b.connect("s2")
			w.pass(silent)
			require.Empty(t, b.gates.codes())
			<-runs
			for range 3 {
				renewed.RenewTime = renewed.RenewTime.Add(time.Second)
				w.server.put(&renewed)
			}
			w.pass(10 * time.Minute)
			runs <- struct{}{}
			w.within(time.Minute, "the pod runs", func() bool { return b.running("s2") || b.dismissed() })
			assert.Empty(t, b.gates.codes(), "the holder has been dead for ten minutes")
		}))
	}
}

// A person or another controller may annotate the Lease of a dead holder. Only a renewal shows that
// the holder lives.
func TestForeignWritesNeverShowThatHolderLives(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.start("a")
		a.connect("s1")
		w.within(time.Second, "the holder runs", func() bool { return a.running("s1") })
		b := w.start("b", skips)
		w.pass(20 * time.Second)
		a.kill()
		a.gates.end("s1")
		for range 4 {
			w.pass(9 * time.Second)
			edited := w.server.lease(theSlot)
			edited.Annotations["example.com/note"] = edited.ResourceVersion
			w.server.put(&edited)
		}
		b.connect("s2")
		w.within(time.Minute, "the pod runs", func() bool { return b.running("s2") || b.dismissed() })
		assert.Empty(t, b.gates.codes(), "the last renewal is older than the lease duration")
	})
}

func TestPodSkipsOrRunsOnlyAfterStoringDecision(t *testing.T) {
	full := errors.New("no space left on device")
	t.Run("skip", simulated(func(t *testing.T, w *world) {
		w.free(theSlot)
		w.start("a").connect("s1")
		w.pass(time.Second)
		b := w.start("b", skips, func(c *Config) { c.NoteCourse = func(Course) error { return full } })
		b.connect("s2")
		w.pass(time.Minute)
		assert.Empty(t, b.gates.codes())
	}))
	t.Run("run", simulated(func(t *testing.T, w *world) {
		w.free(theSlot)
		b := w.start("b", skips, func(c *Config) { c.NoteCourse = func(Course) error { return full } })
		b.connect("s2")
		a := w.start("a")
		a.connect("s1")
		w.within(time.Minute, "the other pod runs", func() bool { return a.running("s1") })
		assert.Empty(t, b.gates.given())
	}))
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
		assert.Zero(t, w.writes(), "a pod that skips takes no slot")
	})
}

// elector lets a leader election outside of Metaparticle take the slot, and renew the Lease. The
// returned function ends the election.
func (w *world) elector() (stop func()) {
	done := make(chan struct{})
	l := w.server.lease(theSlot)
	l.Holder, l.Annotations, l.DurationSeconds = "elector", nil, 15
	renew := func() {
		l.RenewTime = time.Now()
		l = *w.server.put(&l)
	}
	renew()
	go func() {
		for {
			select {
			case <-time.After(2 * time.Second):
				renew()
			case <-done:
				return
			}
		}
	}()
	return func() { close(done) }
}

func TestPodSkipsWhileALeaderElectionClientHolds(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		stop := w.elector()
		b := w.start("b", skips)
		b.connect("s2")
		w.within(10*time.Second, "the pod skips", b.dismissed)
		stop()
	})
}
