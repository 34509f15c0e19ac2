// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/claim"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/agent/probe"
	"github.com/metaparticle-io/metaparticle/agent/turn"
	"github.com/metaparticle-io/metaparticle/api"
)

func TestRevisionWithOneBrokenContainerIsNotProven(t *testing.T) {
	simulate(t, func(w *world) {
		two := func(c *Config) { c.Containers = []string{"app", "helper"} }
		w.free(theSlot, nextLease)
		a := w.start("a", of(oldRevision), two)
		a.connect("s1")
		a.gates.connect(gate.Report{Shim: "s1h", Container: "helper"})
		w.pass(62 * time.Second)
		b := w.start("b", of(newRevision), two)
		b.connect("s3")
		b.gates.connect(gate.Report{Shim: "s3h", Container: "helper"})
		w.within(time.Second, "the new child runs", func() bool { return b.running("s3") })
		b.gates.end("s3")
		w.pass(100 * time.Millisecond)
		b.gates.report("s3", func(r *gate.Report) { r.Dead = true })
		w.pass(10 * time.Minute)
		assert.Equal(t, a.identity(), w.holder())
		assert.NotEqual(t, newRevision, w.rollout().Proven)
	})
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

// nextCounter counts the requests for the next Lease.
type nextCounter struct {
	*link
	n atomic.Int32
}

func (c *nextCounter) count(name string) {
	if strings.HasPrefix(name, "next") {
		c.n.Add(1)
	}
}

func (c *nextCounter) GetLease(ctx context.Context, name string) (*kube.Lease, error) {
	c.count(name)
	return c.link.GetLease(ctx, name)
}

func (c *nextCounter) WatchLease(ctx context.Context, name, v string, fn func(kube.WatchEvent)) error {
	c.count(name)
	return c.link.WatchLease(ctx, name, v, fn)
}

func TestHolderLimitsItsRequestsAboutTheNextLease(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot, nextLease)
		var c *nextCounter
		a := w.start("a", of(oldRevision), func(cf *Config) { c = &nextCounter{link: cf.API.(*link)}; cf.API = c })
		a.connect("s1")
		a.link.set(func(l *link) { l.idle = 210 * time.Millisecond }) // a proxy ends each watch
		w.pass(time.Minute)
		before := int(c.n.Load())
		w.pass(10 * time.Minute)
		assert.LessOrEqual(t, int(c.n.Load())-before, 10*claim.PerMinute)
	})
}

func TestHolderSendsNoRequestForUnchangedNextLease(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot, nextLease)
		var c *nextCounter
		a := w.start("a", of(oldRevision), func(cf *Config) { c = &nextCounter{link: cf.API.(*link)}; cf.API = c })
		a.link.set(func(l *link) { l.forgetful = true }) // each watch that names a resourceVersion is refused as too old
		a.connect("s1")
		w.pass(time.Second)
		before := int(c.n.Load())
		w.pass(time.Minute)
		assert.Zero(t, int(c.n.Load())-before)
	})
}

func TestNextTurnWaitsUntilASlowHolderServes(t *testing.T) {
	p := turn.Pod{Identity: "a_u", Revision: oldRevision}
	r := turn.Rollout{Hold: "h", Yields: turn.Now, Proven: oldRevision, Start: 90 * time.Second, Turns: []turn.Turns{{Revision: newRevision, Count: 1}}}
	got := p.Holder(62*time.Second, time.Now(), turn.HolderFacts{ID: "h", Since: 1, Rollout: r, Ask: turn.Ask{Identity: "b_u", Revision: newRevision, Seen: 61 * time.Second}})
	assert.Empty(t, got.To)
}

func TestPodAsksEvenIfReadinessOfHolderFlaps(t *testing.T) {
	r := newRollout(Config{
		Pod:    Pod{PodName: "b", PodUID: "u", Revision: newRevision},
		Claims: Claims{Slots: []string{theSlot}, Readiness: api.ReadinessForward},
	})
	r.waiting.Failed = true
	asked := false
	for i := range 3600 {
		now, yields := time.Duration(i)*time.Second, turn.Later
		if i%50 >= 47 { // the holder does not serve for the last 3 s of each 50 s
			yields = turn.Now
		}
		v := []claim.View{{Slot: theSlot, Known: true, FreeAt: now + 30*time.Second, Record: &lease.Record{
			UID: "u", Version: "1", Holder: "a_u", Hold: "h", Profile: lease.Profile{Revision: oldRevision},
			Rollout: turn.Rollout{Hold: "h", Yields: yields, Proven: oldRevision}.String(),
		}}}
		r.see(now, v, true)
		s := r.standing(now, v, nil)
		r.learn(now, s)
		asked = asked || s.Asks
	}
	assert.True(t, asked)
}

func TestPodAcquiresFreeSlotDespiteFrequentLeaseWrites(t *testing.T) {
	simulate(t, func(w *world) {
		a, b := w.rolling()
		b.connect("s3")
		w.within(time.Second, "the new child runs", func() bool { return b.running("s3") })
		b.gates.end("s3")
		w.pass(time.Second)
		b.gates.report("s3", func(r *gate.Report) { r.Dead = true })
		a.kill()
		w.pods["a2"].kill()
		b.connect("s4")
		for range 40 { // a write every 20 s; without these writes b takes the slot after 30 s
			l := w.server.lease(theSlot)
			if l.Holder == b.identity() {
				break
			}
			l.Holder, l.Annotations["someone"] = "", time.Now().String()
			w.server.put(&l)
			w.pass(20 * time.Second)
		}
		assert.Equal(t, b.identity(), w.holder())
	})
}

func TestRevisionIsNotProvenDuringPostStartHook(t *testing.T) {
	simulate(t, func(w *world) {
		_, b := w.rolling()
		b.connect("s3")
		w.within(time.Second, "the new child runs", func() bool { return b.running("s3") })
		b.gates.report("s3", func(r *gate.Report) { r.Starting = true }) // a postStart hook runs
		w.pass(15 * time.Second)
		assert.NotEqual(t, newRevision, w.rollout().Proven)
	})
}

func TestDeletedHolderYieldsToANewerRevision(t *testing.T) {
	simulate(t, func(w *world) {
		a, b := w.rolling()
		a.agent.unit.deletion.known = true // each status write of a deleted pod sets this field
		b.connect("s3")
		w.pass(30 * time.Minute)
		assert.Equal(t, b.identity(), w.holder(), b.message())
	})
}

func TestHolderIgnoresAsksOlderThanItsHold(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot, nextLease)
		a := w.start("a", of(oldRevision))
		a.connect("s1")
		w.within(time.Second, "the old child runs", func() bool { return a.running("s1") })
		a.agent.Yield()
		w.within(time.Second, "the slot is released", func() bool { return w.holder() == "" })
		// A pod asks, and dies, while no holder watches the next Lease.
		next := w.server.lease(nextLease)
		next.Holder, next.Annotations = "dead_u", map[string]string{api.RevisionAnnotation: newRevision.String()}
		w.server.put(&next)
		w.within(time.Minute, "the old pod holds again", func() bool { return w.holder() == a.identity() })
		w.pass(time.Second)
		assert.NotEmpty(t, a.agent.unit.rollout.asks.version, "the holder has read the next Lease")
		assert.Zero(t, a.agent.unit.rollout.asks.last)
	})
}
