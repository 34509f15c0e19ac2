// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/courier"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
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
		require.Len(t, grant.Slots, 1)
		assert.Equal(t, boot, grant.BootID)
		assert.Equal(t, grant.Hold, w.server.lease(theSlot).Annotations[api.HoldAnnotation])

		w.pass(5 * time.Minute)
		l := w.server.lease(theSlot)
		assert.Equal(t, grant.Slots[0].Token, l.Annotations[api.TokenAnnotation], "the token stays the acquiring write's")
		assert.True(t, a.running("s1"))
		assert.Equal(t, 1, l.Transitions)

		a.gates.end("s1")
		w.within(100*time.Millisecond, "released", func() bool { return w.holder() == "" })
		l = w.server.lease(theSlot)
		assert.NotContains(t, l.Annotations, api.HoldAnnotation)
		assert.NotContains(t, l.Annotations, api.ServingAnnotation)
	})
}

func TestHolderPublishesItsRevision(t *testing.T) {
	revision := api.Revision{Workload: "0b9e", Number: 7, Hash: "5d4f"}
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.start("a", func(c *Config) { c.Revision = revision })
		a.connect("s1")
		w.within(time.Second, "child runs", func() bool { return a.running("s1") })
		assert.Equal(t, "0b9e/7/5d4f", w.server.lease(theSlot).Annotations[api.RevisionAnnotation], "in the acquiring write")
		w.pass(time.Minute)
		l := w.server.lease(theSlot)
		assert.Equal(t, revision, courier.RecordOf(&l).Profile.Revision, "renewals keep the revision")

		a.gates.end("s1")
		w.within(time.Second, "released", func() bool { return w.holder() == "" })
		assert.NotContains(t, w.server.lease(theSlot).Annotations, api.RevisionAnnotation)

		b := w.start("b")
		b.connect("s2")
		w.within(slowest, "the next child runs", func() bool { return b.running("s2") })
		assert.NotContains(t, w.server.lease(theSlot).Annotations, api.RevisionAnnotation, "without a revision, no annotation")
	})
}

func TestStandbyWritesNothingWhileAHolderRenews(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.start("a")
		a.connect("s1")
		w.within(time.Second, "child runs", func() bool { return a.running("s1") })
		w.pass(10 * time.Second)
		before := w.server.requests()
		w.pass(5 * time.Minute)
		assert.InDelta(t, 60, w.server.requests()-before, 1, "one write every 5 s")

		b := w.start("b")
		b.connect("s2")
		w.pass(10 * time.Second)
		a.link.set(func(l *link) {}) // this call changes nothing: the pod a stays connected
		before = w.server.requests()
		w.pass(5 * time.Minute)
		assert.InDelta(t, 60, w.server.requests()-before, 1, "the standby adds nothing")
		assert.Equal(t, gate.Waiting, b.gates.phase("s2"))
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

func TestStandbyWaitsUntilLeaseOfVanishedHolderExpires(t *testing.T) {
	for name, duration := range map[string]time.Duration{"shorter than ours": 10 * time.Second, "ours": 30 * time.Second, "longer than ours": time.Minute} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				w.server.put(&kube.Lease{Name: theSlot, Holder: "client-go", DurationSeconds: int(duration.Seconds())})
				a := w.start("a")
				a.connect("s1")
				took := w.within(2*duration, "taken", func() bool { return w.holder() == a.identity() })
				assert.InDelta(t, duration.Seconds(), took.Seconds(), 0.1)
			})
		})
	}
}

func TestOutageWithinTheBudgetNeverStopsTheChild(t *testing.T) {
	budget, err := api.NewBudget(30 * time.Second)
	require.NoError(t, err)
	// The outage may begin at any point of a renewal's period.
	for offset := time.Duration(0); offset < budget.Renew; offset += 700 * time.Millisecond {
		simulate(t, func(w *world) {
			w.free(theSlot)
			a := w.start("a")
			a.connect("s1")
			w.within(time.Second, "child runs", func() bool { return a.running("s1") })
			w.pass(10*time.Second + offset)
			a.link.set(func(l *link) { l.cut = true })
			w.pass(budget.Outage())
			a.link.set(func(l *link) { l.cut = false })
			w.pass(time.Minute)
			assert.True(t, a.running("s1"))
			assert.Empty(t, a.gates.told())
			assert.Len(t, a.gates.shim("s1").ran, 1)
		})
	}
}

func TestChildDiesByItsDeadlineDuringAnOutage(t *testing.T) {
	for name, broken := range map[string]func(l *link){
		"hanging": func(l *link) { l.cut = true },
		"refused": func(l *link) { l.refuse = &kube.StatusError{Code: 503} },
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				w.free(theSlot)
				a, b := w.pair()
				first := a.gates.hold("s1")
				a.link.set(broken)
				b.link.set(broken)
				w.within(18*time.Second, "child is dead", func() bool { return a.gates.phase("s1") == gate.Waiting })
				w.pass(time.Minute)
				a.link.set(func(l *link) { l.cut, l.refuse = false, nil })
				b.link.set(func(l *link) { l.cut, l.refuse = false, nil })
				// As a standby, pod a waits only for its back-off, and not until the Lease
				// expires.
				w.within(5*time.Second, "child runs again", func() bool { return a.running("s1") })
				assert.NotEqual(t, first, a.gates.hold("s1"))
				assert.Equal(t, gate.Waiting, b.gates.phase("s2"))
				tokens := a.gates.given()[len(a.gates.given())-1].Slots[0].Token
				assert.Greater(t, tokens, a.gates.given()[0].Slots[0].Token)
			})
		})
	}
}

func TestDeadlineOfGrantCountsFromEarliestUnansweredRenewal(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.start("a")
		a.connect("s1")
		w.within(time.Second, "child runs", func() bool { return a.running("s1") })
		w.pass(10 * time.Second)
		version := w.server.lease(theSlot).ResourceVersion
		a.link.set(func(l *link) { l.lose = true })
		w.within(6*time.Second, "stored", func() bool { return w.server.lease(theSlot).ResourceVersion != version })
		stored := w.clock()
		grants := len(a.gates.given())
		w.within(4*time.Second, "read", func() bool { return len(a.gates.given()) > grants })
		b := a.agent.unit.self.Budget
		assert.LessOrEqual(t, a.gates.given()[grants].Deadline, stored+b.Deadline(), "not from the attempt that was refused")
		w.pass(time.Minute)
		assert.True(t, a.running("s1"))
		assert.Len(t, a.gates.shim("s1").ran, 1)
	})
}

func TestNewAgentProcessResumesTheRunningChildsHold(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.start("a")
		a.connect("s1")
		w.within(time.Second, "child runs", func() bool { return a.running("s1") })
		w.pass(7 * time.Second)
		hold, deadline := a.gates.hold("s1"), a.gates.shim("s1").grant.Deadline
		a.kill()
		w.pass(3 * time.Second)
		a = w.start("a")
		w.pass(2 * time.Second)
		assert.Equal(t, deadline, a.gates.shim("s1").grant.Deadline, "nothing is granted before the shim has spoken")
		a.gates.connect(a.gates.shim("s1").report)
		w.within(time.Second, "renewed", func() bool { return a.gates.shim("s1").grant.Deadline > deadline })
		assert.Equal(t, hold, a.gates.shim("s1").grant.Hold)
		assert.Equal(t, hold, w.server.lease(theSlot).Annotations[api.HoldAnnotation])
		assert.Equal(t, a.gates.given()[0].Slots, a.gates.shim("s1").report.Slots, "the token stays")
		w.pass(time.Minute)
		assert.True(t, a.running("s1"))
		a.gates.end("s1")
		w.within(time.Second, "released: the one container spoke", func() bool { return w.holder() == "" })
	})
}

func TestRestartedAgentReleasesNothingBeforeEveryShimConnects(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		two := func(c *Config) { c.Containers = []string{"app", "helper"} }
		a := w.start("a", two)
		a.connect("s1")
		a.gates.connect(gate.Report{Shim: "s2", Container: "helper"})
		w.within(time.Second, "children run", func() bool { return a.running("s1") && a.running("s2") })
		a.kill()
		a = w.start("a")
		a.gates.connect(a.gates.shim("s1").report)
		w.pass(time.Second)
		a.gates.end("s1")
		w.pass(25 * time.Second)
		assert.Equal(t, a.identity(), w.holder(), "the helper may live")
	})
}

func TestShimThatReportsDoubtWaitsUntilHoldExpires(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.start("a")
		a.connect("s1")
		w.within(time.Second, "child runs", func() bool { return a.running("s1") })
		hold := a.gates.hold("s1")
		renewed := w.server.lease(theSlot).RenewTime
		// Agent and shim are killed at the same time, and the child may live on.
		a.kill()
		a = w.start("a")
		a.gates.connect(gate.Report{Shim: "s2", Container: "app", Unproven: hold})
		began := w.clock()
		w.pass(29 * time.Second)
		assert.Equal(t, gate.Waiting, a.gates.phase("s2"))
		assert.Equal(t, renewed, w.server.lease(theSlot).RenewTime, "neither renewed nor released")
		w.within(2*time.Second, "waited out", func() bool { return a.running("s2") })
		assert.GreaterOrEqual(t, w.clock()-began, 30*time.Second)
		assert.NotEqual(t, hold, a.gates.hold("s2"))
	})
}

func TestRebootProvesThatNoChildIsAlive(t *testing.T) {
	simulate(t, func(w *world) {
		w.server.put(&kube.Lease{Name: theSlot, Holder: "a_u", DurationSeconds: 30, Annotations: map[string]string{
			api.HoldAnnotation: "h", api.BootAnnotation: "boot-0"}})
		a := w.start("a")
		a.gates.connect(gate.Report{Shim: "s1", Container: "app", Unproven: "h"})
		w.within(time.Second, "taken at once", func() bool { return a.running("s1") })
	})
}

func TestRebootProvesNothingIfPodHasOwnKernel(t *testing.T) {
	simulate(t, func(w *world) {
		w.server.put(&kube.Lease{Name: theSlot, Holder: "a_u", DurationSeconds: 30, Annotations: map[string]string{
			api.HoldAnnotation: "h", api.BootAnnotation: "boot-0"}})
		a := w.start("a", func(c *Config) { c.OwnKernel = true })
		a.gates.connect(gate.Report{Shim: "s1", Container: "app", Unproven: "h"})
		w.pass(29 * time.Second)
		assert.False(t, a.running("s1"))
		w.within(2*time.Second, "taken like anybody's", func() bool { return a.running("s1") })
	})
}

func TestKilledShimFreesItsSlot(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a, b := w.pair()
		a.gates.report("s1", func(r *gate.Report) { r.Connected = false })
		w.pass(300 * time.Millisecond)
		assert.Equal(t, a.identity(), w.holder(), "the end of the connection is no proof")
		a.gates.report("s1", func(r *gate.Report) { r.Dead = true })
		w.pass(0)
		assert.True(t, b.running("s2"))
	})
}

func TestAgentRenewsNoLeaseWhileShimIsDisconnected(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a, b := w.pair()
		renewed := w.server.lease(theSlot).RenewTime
		a.gates.report("s1", func(r *gate.Report) { r.Connected = false })
		w.pass(25 * time.Second)
		l := w.server.lease(theSlot)
		assert.Equal(t, a.identity(), l.Holder)
		assert.Equal(t, renewed, l.RenewTime)
		w.within(5*time.Second, "expired", func() bool { return b.running("s2") })
	})
}

func TestChildRunsOnlyWhilePodHoldsAllSlots(t *testing.T) {
	simulate(t, func(w *world) {
		w.free("lock.a", "lock.b")
		both := func(c *Config) { c.Slots = []string{"lock.a", "lock.b"} }
		a := w.start("a", both)
		a.link.set(func(l *link) { l.broken = "lock.b" })
		a.connect("s1")
		w.pass(time.Second)
		acquired := w.server.lease("lock.a").AcquireTime
		w.pass(25 * time.Second)
		assert.Equal(t, a.identity(), w.server.lease("lock.a").Holder)
		assert.Equal(t, acquired, w.server.lease("lock.a").AcquireTime, "kept while the second is waited for")
		assert.WithinDuration(t, acquired.Add(20*time.Second), w.server.lease("lock.a").RenewTime, 5*time.Second, "and renewed")
		assert.Equal(t, gate.Waiting, a.gates.phase("s1"))

		a.link.set(func(l *link) { l.broken = "" })
		w.within(5*time.Second, "both held", func() bool { return a.running("s1") })
		require.Len(t, a.gates.given()[0].Slots, 2)
		assert.Equal(t, "lock.a", a.gates.given()[0].Slots[0].Slot)

		// A person gives the second slot to somebody else.
		l := w.server.lease("lock.b")
		l.Holder = "somebody"
		w.server.put(&l)
		w.within(10*time.Second, "drained", func() bool { return a.gates.phase("s1") == gate.Waiting })
		l = w.server.lease("lock.b")
		l.Holder = ""
		w.server.put(&l)
		w.within(5*time.Second, "both again", func() bool { return a.running("s1") })
		assert.Len(t, a.gates.shim("s1").ran, 2)
	})
}

func TestStoppedAgentReleasesSlotAfterItsChildEnds(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a, b := w.start("a"), w.start("b")
		a.connect("s1")
		w.within(time.Second, "child runs", func() bool { return a.running("s1") })
		close(a.stop)
		w.pass(2 * time.Minute)
		assert.True(t, a.running("s1"))
		assert.Equal(t, a.identity(), w.holder())
		a.gates.end("s1")
		w.pass(100 * time.Millisecond)
		assert.Empty(t, w.holder())
		require.Len(t, a.done, 1)
		assert.NoError(t, <-a.done)

		close(b.stop)
		w.pass(100 * time.Millisecond)
		require.Len(t, b.done, 1, "a standby leaves at once")
	})
}

func TestVanishedLeaseMakesAllPodsWait(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a, b := w.pair()
		w.server.remove(theSlot)
		w.pass(2 * time.Second)
		assert.True(t, a.running("s1"), "the hold is good until its deadline")
		w.server.put(&kube.Lease{Name: theSlot, Holder: "unknown", DurationSeconds: 30})
		began := w.clock()
		w.within(10*time.Second, "drained", func() bool { return a.gates.phase("s1") == gate.Waiting })
		w.within(time.Minute, "one again", func() bool { return a.running("s1") || b.running("s2") })
		assert.GreaterOrEqual(t, w.clock()-began, 30*time.Second)
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

func TestAgentAcquiresSlotSoonAfterAnyErrorEnds(t *testing.T) {
	for name, err := range map[string]error{
		"forbidden": &kube.StatusError{Code: 403},
		"too many":  &kube.StatusError{Code: 429, RetryAfter: time.Hour},
		"gone":      &kube.StatusError{Code: 410},
		"broken":    &kube.StatusError{Code: 500},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				w.free(theSlot)
				a := w.start("a")
				a.link.set(func(l *link) { l.refuse = err })
				a.connect("s1")
				w.pass(10 * time.Minute)
				a.link.set(func(l *link) { l.refuse = nil })
				w.within(5*time.Second, "child runs", func() bool { return a.running("s1") })
			})
		})
	}
}
