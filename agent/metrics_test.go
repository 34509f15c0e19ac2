// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bufio"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// metric returns the value of a metric of the pod's agent.
func (p *pod) metric(name string) float64 {
	p.world.t.Helper()
	lines := bufio.NewScanner(strings.NewReader(p.agent.Metrics().Text()))
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			number, err := strconv.ParseFloat(value, 64)
			require.NoError(p.world.t, err)
			return number
		}
	}
	require.FailNow(p.world.t, "no metric "+name)
	return 0
}

// The method "waiting" starts a pod whose shim waits for the slots. The API server stores no write
// of the pod.
func (w *world) waiting(name string, change ...func(c *Config)) *pod {
	p := w.start(name, change...)
	p.link.set(func(l *link) { l.unwritten = &kube.StatusError{Code: 403} })
	p.connect("s")
	return p
}

func TestMetricVacantSecondsGrowsOnlyWithoutLivingHolder(t *testing.T) {
	const minute = 60
	any := func(c *Config) { c.Any = true }
	for name, c := range map[string]struct {
		prepare func(w *world)
		change  func(c *Config)
		vacant  float64 // metaparticle_vacant_seconds after two minutes
	}{
		"a free slot":           {prepare: func(w *world) { w.free(theSlot) }, vacant: 2 * minute},
		"no Lease":              {prepare: func(*world) {}, vacant: 2 * minute},
		"a vanished holder":     {prepare: func(w *world) { w.put(theSlot, 60) }, vacant: minute},
		"a holder":              {prepare: func(w *world) { w.put(theSlot, 600) }},
		"a paused slot":         {prepare: func(w *world) { w.free(theSlot); w.annotate(theSlot, api.PausedAnnotation, "hold") }},
		"all of two locks":      {prepare: func(w *world) { w.free("lock.a", "lock.b") }, change: both, vacant: 2 * minute},
		"one of two locks":      {prepare: func(w *world) { w.free("lock.a"); w.put("lock.b", 600) }, change: both},
		"one of any two slots":  {prepare: func(w *world) { w.free("lock.a"); w.put("lock.b", 600) }, change: func(c *Config) { both(c); any(c) }, vacant: 2 * minute},
		"none of any two slots": {prepare: func(w *world) { w.put("lock.a", 600); w.put("lock.b", 600) }, change: func(c *Config) { both(c); any(c) }},
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			c.prepare(w)
			change := c.change
			if change == nil {
				change = func(*Config) {}
			}
			p := w.waiting("a", change)
			w.pass(2 * time.Minute)
			assert.InDelta(t, c.vacant, p.metric("metaparticle_vacant_seconds"), 1)
		}))
	}
}

// A standby that hears nothing from the API server does not know whether the holder lives.
func TestVacancyMetricIsZeroDuringAPIServerOutage(t *testing.T) {
	for name, c := range map[string]struct {
		// The function "before" sets the link of the standby's agent at the start. A minute later
		// the function "after" sets the link.
		before, after func(l *link)
		holds         bool          // another pod holds, and renews
		lease         time.Duration // the lease duration of the standby; zero for the default
		vacant        float64       // metaparticle_vacant_seconds of the standby after another five minutes
	}{
		"cut off while the holder lives":         {after: func(l *link) { l.cut = true }, holds: true},
		"cut off from the start":                 {before: func(l *link) { l.cut = true }, holds: true},
		"a longer lease than that of the holder": {after: func(l *link) { l.cut = true }, holds: true, lease: time.Hour},
		"an API server that fails":               {after: func(l *link) { l.refuse = &kube.StatusError{Code: 503} }, holds: true},
		"cut off while nobody holds":             {after: func(l *link) { l.cut = true }},
		"cut off, and connected again":           {before: func(l *link) { l.cut = true }, after: func(l *link) { l.cut = false }, vacant: 300},
		"no right to read the Lease":             {before: func(l *link) { l.unread = true }, vacant: 360},
		"a Lease that vanishes, and no pods":     {after: func(l *link) { l.server.remove(theSlot) }, vacant: 360},
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			w.free(theSlot)
			if c.holds {
				holder := w.start("a")
				holder.connect("s")
				w.within(time.Minute, "held", func() bool { return holder.running("s") })
				defer func() { assert.True(t, holder.running("s")) }()
			}
			b := w.waiting("b", func(o *Config) { o.LeaseDuration = c.lease })
			for _, change := range []func(l *link){c.before, c.after} {
				if change != nil {
					b.link.set(change)
				}
				w.pass(time.Minute)
			}
			w.pass(4 * time.Minute)
			assert.InDelta(t, c.vacant, b.metric("metaparticle_vacant_seconds"), 10)
		}))
	}
}

// put creates a Lease whose holder has vanished. The argument "seconds" is the lease
// duration.
func (w *world) put(name string, seconds int) {
	w.server.put(&kube.Lease{Name: name, Holder: "vanished", DurationSeconds: seconds})
}

func TestMetricVacantSecondsIsZeroUnlessShimWaits(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		p := w.waiting("a")
		w.pass(time.Minute)
		assert.InDelta(t, 60, p.metric("metaparticle_vacant_seconds"), 1)
		p.gates.report("s", func(r *gate.Report) { r.Connected = false })
		w.pass(11 * time.Second)
		assert.Zero(t, p.metric("metaparticle_vacant_seconds"), "no container waits")
		p.connect("s2")
		w.pass(time.Minute)
		assert.InDelta(t, 60, p.metric("metaparticle_vacant_seconds"), 1)
		p.link.set(func(l *link) { l.unwritten = nil })
		w.within(time.Minute, "held", func() bool { return p.running("s2") })
		w.pass(time.Second)
		assert.Zero(t, p.metric("metaparticle_vacant_seconds"))
	})
}

// With a lease duration of 30 s, the holder renews every 5 s. The drain begins 15 s after the
// last stored renewal. A renewal counts as late if more than 10 s, the middle of 5 s and 15 s,
// have passed since the last stored renewal.
func TestMetricCountsLateRenewals(t *testing.T) {
	cut := func(l *link) { l.cut = true }
	for name, c := range map[string]struct {
		fault  func(l *link)
		outage time.Duration
		late   float64
	}{
		"short":                    {cut, 4 * time.Second, 0},
		"long":                     {cut, 10 * time.Second, 1},
		"stored without an answer": {func(l *link) { l.slow = 7 * time.Second }, 12 * time.Second, 1},
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			w.free(theSlot)
			p := w.start("a")
			p.connect("s")
			w.pass(time.Minute)
			before := p.metric("metaparticle_renewal_seconds_total")
			assert.Zero(t, p.metric("metaparticle_renewals_late_total"))
			assert.Zero(t, before, "the answers come at once")
			p.link.set(c.fault)
			w.pass(c.outage)
			p.link.set(func(l *link) { l.cut, l.slow = false, 0 })
			w.pass(time.Minute)
			assert.True(t, p.running("s"))
			assert.InDelta(t, c.late, p.metric("metaparticle_renewals_late_total"), 0)
			assert.GreaterOrEqual(t, p.metric("metaparticle_renewal_seconds_total"), 2.5*min(c.late, 1), "each renewal without an answer took 2.5 s")
		}))
	}
}

// The alerts about late renewals and about vacant slots read these metrics.
func TestOutageThatSupportersBridgeCountsAsNoTrouble(t *testing.T) {
	for name, begin := range everywhere {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			n := supported(w, "a", "b", "c", "d")
			a := n.pods["a"]
			w.pass(time.Minute)
			assert.EqualValues(t, 2, a.metric("metaparticle_supporters"))
			n.all(begin)
			for range 60 {
				w.pass(5 * time.Second)
				assert.Greater(t, a.metric("metaparticle_deadline_seconds"), 10.0, "the drain begins later")
				for _, p := range n.pods {
					require.Zero(t, p.metric("metaparticle_vacant_seconds"))
				}
			}
			n.all(over)
			w.pass(time.Minute)
			assert.Zero(t, a.metric("metaparticle_renewals_late_total"))
			assert.EqualValues(t, 2, a.metric("metaparticle_supporters"))
		}))
	}
}

func TestMetricLabelContainsThePodsWorkload(t *testing.T) {
	simulate(t, func(w *world) {
		assert.EqualValues(t, 1, w.start("a").metric(`metaparticle_workload_info{workload="Deployment/biller"}`))
	})
}
