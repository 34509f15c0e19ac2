// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
)

// An overloaded etcd can store each write only after the agent has given up, and still answer reads at
// once. A hold must begin, and last, although no agent gets an answer to a stored write.
func TestSlotIsAcquiredDespiteSlowWrites(t *testing.T) {
	if testing.Short() {
		t.Skip("slow with the race detector")
	}
	pool := []string{api.SemaphoreLease("pool", 0), api.SemaphoreLease("pool", 1), api.SemaphoreLease("pool", 2)}
	locks := []string{api.LockLease("a"), api.LockLease("b"), api.LockLease("c")}
	for name, test := range map[string]struct {
		config func(c *Config)
		want   int
		most   time.Duration
	}{
		"singleton":  {func(*Config) {}, 1, 20 * time.Second},
		"semaphore":  {func(c *Config) { c.Slots, c.Any = pool, true }, 3, time.Minute},
		"locks":      {func(c *Config) { c.Slots = locks }, 1, time.Minute},
		"start lock": {func(c *Config) { c.StartSlots = []string{api.LockLease("start")} }, 1, time.Minute},
	} {
		for _, slow := range []time.Duration{2600 * time.Millisecond, 3 * time.Second, 4 * time.Second} {
			t.Run(name+" "+slow.String(), simulated(func(t *testing.T, w *world) {
				w.free(slices.Concat([]string{theSlot, api.LockLease("start")}, pool, locks)...)
				var all []*pod
				for _, pod := range []string{"a", "b", "c"} {
					p := w.start(pod, test.config)
					p.set(func(l *link) { l.slow = slow })
					p.connect("s")
					all = append(all, p)
				}
				running := func() (n int) {
					for _, p := range all {
						if p.running("s") {
							n++
						}
					}
					return n
				}
				w.within(test.most, "the children run", func() bool { return running() == test.want })
				for range 300 {
					w.pass(time.Second)
					require.Equal(t, test.want, running(), "the holds last")
				}
			}))
		}
	}
}

// Each acquisition causes Events and writes, and keeps another pod from the slot for a moment. The
// pod acquires no more often than a holder renews.
func TestPodThatCannotStartAcquiresRarely(t *testing.T) {
	for duration, want := range map[time.Duration]int{10 * time.Second: 10, time.Minute: 6} {
		t.Run(duration.String(), simulated(func(t *testing.T, w *world) {
			w.free(theSlot)
			a := w.start("a", func(c *Config) { c.LeaseDuration = duration })
			a.gates.broken = true
			a.connect("s1")
			w.pass(time.Minute)
			before := w.server.lease(theSlot).Transitions
			w.pass(time.Minute)
			assert.InDelta(t, want, w.server.lease(theSlot).Transitions-before, 2)
		}))
	}
}

// loseAcquisition starts a pod whose acquiring write is stored, but not answered. The function returns
// before the agent learns by a read that the pod holds.
func (w *world) loseAcquisition() *pod {
	w.free(theSlot)
	a := w.start("a")
	w.pass(time.Second)
	a.link.set(func(l *link) { l.lose = true })
	a.connect("s1")
	w.within(time.Second, "the write is stored", func() bool { return w.holder() == a.identity() })
	return a
}

// The leap may mean that the machine was paused, so that the Lease expired before the read.
func TestFoundHoldWaitsForRenewalAfterALeap(t *testing.T) {
	simulate(t, func(w *world) {
		a := w.loseAcquisition()
		a.link.set(func(l *link) { l.unwritten = &kube.StatusError{Code: 503} })
		a.leaps("s1", 1)
		w.pass(8 * time.Second)
		require.Equal(t, a.identity(), w.holder())
		assert.Empty(t, a.gates.given())
		a.link.set(func(l *link) { l.unwritten = nil })
		w.within(5*time.Second, "the child runs", func() bool { return a.running("s1") })
	})
}

var first = func(c *Config) { c.Slots = []string{"lock.a"} }

// Pod x claims two locks, and cannot acquire the second lock. Pod y claims only the first lock,
// and must run nevertheless.
func TestPodThatCannotAcquireBothLocksKeepsNeither(t *testing.T) {
	for name, c := range map[string]struct {
		keep   func(w *world, x *pod)
		within time.Duration
	}{
		"held by another for long": {within: time.Second, keep: func(w *world, _ *pod) {
			z := w.start("z", func(c *Config) { c.Slots = []string{"lock.b"} })
			z.connect("s3")
			w.within(time.Second, "z runs", func() bool { return z.running("s3") })
		}},
		"paused":        {within: time.Second, keep: func(w *world, _ *pod) { w.annotate("lock.b", api.PausedAnnotation, string(api.PauseHold)) }},
		"not there":     {within: time.Second, keep: func(w *world, _ *pod) { w.server.remove("lock.b") }},
		"not readable":  {within: time.Second, keep: func(_ *world, x *pod) { x.link.set(func(l *link) { l.hidden = "lock.b" }) }},
		"not writeable": {within: 31 * time.Second, keep: func(_ *world, x *pod) { x.link.set(func(l *link) { l.broken = "lock.b" }) }},
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			w.free("lock.a", "lock.b")
			x := w.start("x", both, func(*Config) { c.keep(w, w.pods["x"]) }) // c.keep runs before pod x sends its first request
			x.connect("s1")
			w.pass(time.Second)
			y := w.start("y", first)
			y.connect("s2")
			w.within(c.within, "y runs", func() bool { return y.running("s2") })
			w.pass(10 * time.Minute)
			assert.True(t, y.running("s2"))
			assert.Empty(t, x.gates.given())
		}))
	}
}

func TestPodTakesNoLockBeforeAllAreFree(t *testing.T) {
	simulate(t, func(w *world) {
		w.free("lock.a", "lock.b")
		z := w.start("z", func(c *Config) { c.Slots = []string{"lock.b"} })
		z.connect("s3")
		w.within(time.Second, "z runs", func() bool { return z.running("s3") })
		untouched := w.server.lease("lock.a").ResourceVersion
		pods := []*pod{w.start("x", both), w.start("y", both)}
		for _, p := range pods {
			p.connect("s")
		}
		w.pass(5 * time.Minute)
		assert.Equal(t, untouched, w.server.lease("lock.a").ResourceVersion, "nothing is taken in vain")
		z.gates.end("s3")
		w.within(time.Second, "one runs", func() bool { return pods[0].running("s") || pods[1].running("s") })
		w.pass(time.Minute)
		assert.NotEqual(t, pods[0].running("s"), pods[1].running("s"))
	})
}

var both = func(c *Config) { c.Slots = []string{"lock.a", "lock.b"} }

// Without the number of shards, a claim would ignore the stamps of its Leases.
func TestAgentRefusesShardsIfTheirCountIsMissing(t *testing.T) {
	for _, slots := range [][]string{{"shards.deployment.web.1"}, {"lock.a", "shards.deployment.web.0"}} {
		_, err := New(Config{Pod: Pod{PodName: "a", PodUID: "u", BootID: boot}, Claims: Claims{Need: api.Need{Slots: slots}}})
		assert.ErrorContains(t, err, "are not all shards of one workload")
	}
	_, err := New(Config{Pod: Pod{PodName: "a", PodUID: "u", BootID: boot}, Claims: Claims{Need: api.Need{Slots: []string{"shards.deployment.web.0"}, Shards: 1}}})
	assert.ErrorContains(t, err, "a gate", "the next check")
	_, err = New(Config{Pod: Pod{PodName: "a", PodUID: "u", BootID: boot}, Claims: Claims{Need: api.Need{Slots: []string{"lock.b", "lock.a"}}}})
	assert.ErrorContains(t, err, "not in the order of acquisition", "an order that is not everybody's")
}

// If the watches of a standby deliver nothing, the takeover after a vanished holder still takes a
// bounded time. The bound is the sum of three times: the lease duration, the head start of the
// holder, and twice the longest wait between reads. Package lease gives the holder a sixth of the
// lease duration as its head start.
func TestTakeoverTimeIsBoundedEvenIfWatchesFail(t *testing.T) {
	for name, c := range map[string]struct {
		duration time.Duration
		trouble  func(l *link)
	}{
		"cut when idle":           {10 * time.Minute, func(l *link) { l.idle = 50 * time.Second }},
		"cut within each renewal": {30 * time.Second, func(l *link) { l.idle = 4 * time.Second }},
		"cut at once":             {30 * time.Second, func(l *link) { l.idle = 1 }},
		"closed at once":          {30 * time.Second, func(l *link) { l.idle, l.orderly = 1, true }},
		"too many":                {30 * time.Second, func(l *link) { l.unwatched = &kube.StatusError{Code: 429} }},
		"too many, of an hour":    {time.Hour, func(l *link) { l.unwatched = &kube.StatusError{Code: 429, RetryAfter: time.Hour} }},
		"forbidden":               {10 * time.Second, func(l *link) { l.unwatched = &kube.StatusError{Code: 403} }},
		"page of a proxy (404)":   {30 * time.Second, func(l *link) { l.unwatched = &kube.StatusError{Code: 404} }},
		"too old":                 {30 * time.Second, func(l *link) { l.unwatched = &kube.StatusError{Code: 410} }},
		"mute":                    {30 * time.Second, func(l *link) { l.mute = true }},
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			w.server.put(&kube.Lease{Name: theSlot, Holder: "vanished", DurationSeconds: int(c.duration.Seconds())})
			a := w.start("a", func(cfg *Config) { cfg.LeaseDuration = c.duration })
			a.link.set(c.trouble)
			a.connect("s1")
			began := w.clock()
			w.within(c.duration*7/6+2*pace.Slowest, "taken", func() bool { return a.running("s1") })
			assert.GreaterOrEqual(t, w.clock()-began, c.duration, "the holder may have lived until then")
			// After the agent's end, the fake shim's watchdog kills the child at the deadline
			// of the last grant.
			a.kill()
			w.pass(c.duration)
		}))
	}
}

func TestStandbyLimitsHugeLeaseDurationsToAnHour(t *testing.T) {
	simulate(t, func(w *world) {
		w.server.put(&kube.Lease{Name: theSlot, Holder: "somebody", DurationSeconds: 1<<31 - 1})
		a := w.start("a")
		a.connect("s1")
		w.pass(api.MaxLeaseDuration - time.Second)
		assert.False(t, a.running("s1"))
		w.within(2*time.Second, "taken", func() bool { return a.running("s1") })
	})
}
