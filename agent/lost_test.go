// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/ends"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// stubborn starts a pod that holds the slot, and whose child does not stop at SIGTERM.
func stubborn(w *world, change ...func(c *Config)) *pod {
	a := w.hold(change...)
	a.gates.shims["s1"].stop = time.Hour
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
		t.Run(name, simulated(func(t *testing.T, w *world) {
			a := stubborn(w)
			w.edit(c.change)
			w.within(10*time.Millisecond, "drain is asked for", func() bool { return len(a.gates.told()) > 0 })
			took := w.within(drain+time.Second, "child is dead", a.stopped)
			assert.Equal(t, []string{ends.Lost.Reason}, a.gates.told())
			assert.Equal(t, []time.Duration{c.grace}, a.gates.left())
			assert.InDelta(t, c.grace.Seconds(), took.Seconds(), .02)
		}))
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
		assert.Equal(t, []string{ends.Lost.Reason}, a.gates.told())
		assert.Equal(t, []time.Duration{0}, a.gates.left())
		before := w.server.requests()
		w.pass(2 * time.Minute)
		assert.False(t, a.running("s1") || b.running("s2"), "no pod has a safe deadline")
		assert.LessOrEqual(t, w.server.requests()-before, 2*2*120, "two requests a second for each pod")
		w.server.shortens(0)
		w.within(time.Minute, "a child runs", func() bool { return a.running("s1") || b.running("s2") })
	})
}

// deaf is a gate that loses one grant, as a full socket does. If the field "any" is unset, the gate
// loses only a grant that thaws a child.
type deaf struct {
	*gates
	lose  atomic.Bool
	any   bool
	calls atomic.Int32
}

var errFull = errors.New("send grant: resource temporarily unavailable")

func (d *deaf) Grant(id gate.ShimID, g gate.Grant) error {
	d.calls.Add(1)
	if (d.any || g.Leap != 0) && d.lose.CompareAndSwap(true, false) {
		return errFull
	}
	return d.gates.Grant(id, g)
}

// deafPod starts a pod whose gate loses grants.
func (w *world) deafPod(duration time.Duration, first bool) (*pod, *deaf) {
	w.free(theSlot)
	var g *deaf
	a := w.start("a", func(c *Config) {
		c.LeaseDuration = duration
		g = &deaf{gates: c.Gate.(*gates), any: first}
		g.lose.Store(first)
		c.Gate = g
	})
	a.connect("s1")
	return a, g
}

func TestLostGrantIsSentAgainSoon(t *testing.T) {
	for _, d := range []time.Duration{30 * time.Second, time.Hour} {
		t.Run(fmt.Sprint("first ", d), simulated(func(t *testing.T, w *world) {
			a, _ := w.deafPod(d, true)
			took := w.within(2*d, "child runs", func() bool { return a.running("s1") })
			assert.LessOrEqual(t, took, 2*time.Second, "the pod holds, and nothing runs")
			a.kill()
			w.pass(2 * d)
		}))
		t.Run(fmt.Sprint("thaw ", d), simulated(func(t *testing.T, w *world) {
			a, g := w.deafPod(d, false)
			w.within(time.Second, "child runs", func() bool { return a.running("s1") })
			w.pass(d)
			g.lose.Store(true)
			before := g.calls.Load()
			a.leaps("s1", 7)
			took := w.within(2*d, "thawed", func() bool { _, ok := a.answer(); return ok })
			assert.LessOrEqual(t, took, 2*time.Second, "the child stays frozen")
			assert.LessOrEqual(t, g.calls.Load()-before, int32(4), "the agent waits before the next attempt")
			a.kill()
			w.pass(2 * d)
		}))
	}
}

// staleStart is a client whose watches without a version begin with an old state, as from an API
// server whose watch cache is behind.
type staleStart struct {
	*link
	name string
	old  atomic.Pointer[kube.Lease]
}

func (c *staleStart) WatchLease(ctx context.Context, name, v string, fn func(kube.WatchEvent)) error {
	if old := c.old.Load(); name == c.name && v == "" && old != nil {
		fn(kube.WatchEvent{Type: kube.Added, Lease: old.Clone(), ResourceVersion: old.ResourceVersion})
	}
	return c.link.WatchLease(ctx, name, v, fn)
}

// The agent restarts while an API server restarts. That API server stores no renewal, has forgotten
// the version that the agent has read, and first sends an old state of the Lease.
func TestOldEventKillsNoChildOfRestartedAgent(t *testing.T) {
	for _, late := range []bool{false, true} { // whether the shim connects after the old event
		simulate(t, func(w *world) {
			old := w.server.put(&kube.Lease{Name: theSlot, Holder: "b_u", DurationSeconds: 30, Annotations: map[string]string{api.HoldAnnotation: "hb"}})
			w.edit(func(l *kube.Lease) { l.Holder, l.Annotations = "", nil })
			var c *staleStart
			stale := func(cf *Config) { c = &staleStart{link: cf.API.(*link), name: theSlot}; cf.API = c }
			a := w.start("a", stale)
			a.connect("s1").stop = time.Hour
			w.within(time.Second, "child runs", func() bool { return a.running("s1") })
			w.pass(10 * time.Second)
			a.kill()
			a.link.set(func(l *link) { l.unwritten, l.forgetful = &kube.StatusError{Code: 503}, true })
			a = w.start("a", func(cf *Config) { stale(cf); c.old.Store(old) })
			if late {
				w.pass(100 * time.Millisecond)
			}
			reads := a.sent("get")
			a.gates.connect(a.gates.shim("s1").report)
			w.pass(3 * time.Second)
			assert.LessOrEqual(t, a.sent("get")-reads, 8, "the agent reads about twice a second")
			a.link.set(func(l *link) { l.unwritten, l.forgetful = nil, false })
			c.old.Store(nil)
			w.pass(3 * time.Second)
			assert.Empty(t, a.gates.told(), "the Lease has always named this pod (late %v)", late)
			assert.True(t, a.running("s1"))
			assert.Equal(t, a.identity(), w.holder())
		})
	}
}

// The standbys forward connections to the holder while the Lease shows that its application serves. The
// application takes some seconds to stop.
func TestLeaseSoonShowsThatDrainedApplicationStops(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.start("a")
		a.connect("s1").stop = 3 * time.Second
		serves := func() bool { return w.server.lease(theSlot).Annotations[api.ServingAnnotation] != "" }
		w.within(time.Second, "the application serves", serves)
		w.pass(time.Second)
		a.agent.Yield()
		w.within(stopsAtOnce+50*time.Millisecond, "the Lease shows the stop", func() bool { return !serves() })
		assert.Equal(t, gate.Draining, a.gates.phase("s1"))
	})
}
