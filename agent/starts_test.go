// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/ends"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/status"
	"github.com/metaparticle-io/metaparticle/api"
)

const startSlot = "start-lock.db"

// starter gives a pod a start lock as its only claim, and an application with a readiness probe.
func starter(app *patient) func(c *Config) {
	return func(c *Config) {
		c.Slots, c.StartSlots = nil, []string{startSlot}
		app.probed("readiness")(c)
	}
}

func (w *world) starting() string { return w.server.lease(startSlot).Holder }

// startsUnderLock starts a pod with the name "a" and a start lock. Its shim s1 has a running child.
func (w *world) startsUnderLock(app *patient, change ...func(c *Config)) *pod {
	w.free(startSlot)
	a := w.start("a", append([]func(c *Config){starter(app)}, change...)...)
	a.connect("s1")
	w.within(time.Second, "child runs", func() bool { return a.running("s1") })
	return a
}

// restart kills the agent of a pod whose shim s1 has a child, and starts another agent process.
func (w *world) restart(p *pod) *pod {
	p.kill()
	r := p.gates.shim("s1").report
	p = w.start(p.config.PodName)
	p.gates.connect(gate.Report{Shim: "s1", Container: "app", Phase: gate.Running, Hold: r.Hold, Slots: r.Slots, Since: r.Since})
	return p
}

func TestStartLockLastsUntilApplicationIsReady(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(startSlot)
		first, second := newPatient("readiness"), newPatient()
		a := w.start("a", starter(first))
		a.connect("s1")
		w.within(time.Second, "first child runs", func() bool { return a.running("s1") })
		b := w.start("b", starter(second))
		b.connect("s2")
		w.pass(slowStart + time.Second)
		assert.Equal(t, gate.Waiting, b.gates.phase("s2"), "no timeout ends a start")
		assert.Equal(t, []string{"this pod has held start-lock.db for 10m0s: its application is not ready, and other pods wait to start"},
			w.event("a", "StartsSlowly"))
		assert.Equal(t, a.identity(), w.starting())
		assert.Contains(t, b.status(), "start-lock.db is held by a, whose application starts")

		first.be(false, "readiness")
		w.within(6*time.Second, "second child runs", func() bool { return b.running("s2") })
		w.within(6*time.Second, "start lock is free", func() bool { return w.starting() == "" })
		assert.True(t, a.running("s1"), "the application goes on without the slot")
		assert.Contains(t, a.status(), `"reason":"`+status.ReadyStarted)
		assert.Contains(t, a.status(), `"metaparticle.io/role":null`, "no pod holds a slot for life")

		// From here on, neither pod sends a request to the API server.
		before := w.server.requests()
		w.pass(time.Hour)
		assert.Equal(t, before, w.server.requests())
		assert.True(t, a.running("s1") && b.running("s2"))
		a.gates.end("s1")
		b.gates.end("s2")
	})
}

// status returns the last status that the agent has stored.
func (p *pod) status() string {
	p.link.mu.Lock()
	defer p.link.mu.Unlock()
	return p.link.patches[len(p.link.patches)-1]
}

func TestEachChildNeedsTheStartLockToStart(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(startSlot)
		app := newPatient()
		a := w.start("a", starter(app))
		a.connect("s1")
		w.within(6*time.Second, "first start is over", func() bool { return a.running("s1") && w.starting() == "" })

		l := w.server.lease(startSlot)
		l.Holder, l.RenewTime, l.DurationSeconds = "other_u", time.Now(), 30
		w.server.put(&l)
		a.gates.end("s1")
		a.connect("s2")
		w.pass(20 * time.Second)
		assert.Equal(t, gate.Waiting, a.gates.phase("s2"), "another pod starts")
		w.within(15*time.Second, "second start follows the expiry", func() bool { return a.running("s2") })
		a.gates.end("s2")
	})
}

func TestChildSurvivesLossOfStartLock(t *testing.T) {
	simulate(t, func(w *world) {
		a := w.startsUnderLock(newPatient("readiness"))
		a.link.set(func(l *link) { l.cut = true })
		w.pass(2 * time.Minute)
		assert.True(t, a.running("s1"))
		b := w.start("b", starter(newPatient()))
		b.connect("s2")
		w.within(35*time.Second, "another pod starts", func() bool { return b.running("s2") })
		a.link.set(func(l *link) { l.cut = false })
		w.pass(2 * time.Minute)
		assert.True(t, a.running("s1"))
		assert.Empty(t, a.gates.told())
		assert.Empty(t, w.starting(), "the pod that lost the lock leaves it alone")
		a.gates.end("s1")
		b.gates.end("s2")
	})
}

func TestRestartedAgentKeepsTheStartLock(t *testing.T) {
	simulate(t, func(w *world) {
		app := newPatient("readiness")
		a := w.restart(w.startsUnderLock(app))
		b := w.start("b", starter(newPatient()))
		b.connect("s2")
		w.pass(2 * time.Minute)
		assert.Equal(t, a.identity(), w.starting(), "the new process renews the hold of the earlier one")
		assert.Equal(t, gate.Waiting, b.gates.phase("s2"))
		app.be(false, "readiness")
		w.within(6*time.Second, "other pod starts", func() bool { return b.running("s2") })
		assert.True(t, a.running("s1"))
		a.gates.end("s1")
		b.gates.end("s2")
	})
}

func TestPodTakesTheStartLockAfterItsSingleton(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		w.server.put(&kube.Lease{Name: startSlot, DurationSeconds: 30, Holder: "other_u", RenewTime: time.Now()})
		app := newPatient("readiness")
		a := w.start("a", func(c *Config) { c.StartSlots = []string{startSlot} }, app.probed("readiness"))
		w.pass(time.Minute)
		assert.Equal(t, "other_u", w.starting(), "no shim waits")
		l := w.server.lease(startSlot)
		l.RenewTime = time.Now()
		w.server.put(&l)
		a.connect("s1")
		w.pass(25 * time.Second)
		assert.Equal(t, a.identity(), w.holder(), "the pod renews its singleton while it waits for the start lock")
		assert.Equal(t, gate.Waiting, a.gates.phase("s1"))
		w.within(10*time.Second, "child runs", func() bool { return a.running("s1") })
		assert.Equal(t, a.identity(), w.starting())
		grants := a.gates.given()
		assert.NotEqual(t, gate.Unbounded, grants[0].Deadline)
		assert.NotZero(t, grants[0].StartBy)
		require.Len(t, grants[0].Slots.List(), 1, "the start lock has no token for the application")

		app.be(false, "readiness")
		w.within(6*time.Second, "start lock is free", func() bool { return w.starting() == "" })
		w.pass(time.Minute)
		assert.Equal(t, a.identity(), w.holder())
		assert.True(t, a.running("s1"))
	})
}

func TestChildNeverStartsWhileStartLockIsPaused(t *testing.T) {
	simulate(t, func(w *world) {
		w.server.put(&kube.Lease{Name: startSlot, DurationSeconds: 30, Annotations: map[string]string{"metaparticle.io/paused": "continue"}})
		a := w.start("a", starter(newPatient()))
		a.connect("s1")
		w.pass(time.Minute)
		assert.Equal(t, gate.Waiting, a.gates.phase("s1"))
		assert.Contains(t, a.status(), "start-lock.db is paused")
	})
}

func TestContainerEndsAfterBoundedWaitForStartLock(t *testing.T) {
	bounded := func(c *Config) { c.WaitAtMost = time.Minute }
	for name, change := range map[string]func(c *Config){
		"start lock alone": starter(newPatient()),
		"beside a singleton": func(c *Config) {
			starter(newPatient())(c)
			c.Slots = []string{theSlot}
		},
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			w.free(theSlot)
			w.server.put(&kube.Lease{Name: startSlot, DurationSeconds: 3600, Holder: "other_u", RenewTime: time.Now()})
			a := w.start("a", change, bounded)
			a.connect("s1")
			w.pass(59 * time.Second)
			assert.Equal(t, gate.Waiting, a.gates.phase("s1"))
			w.within(2*time.Second, "the wait ends", func() bool { return a.gates.phase("s1") == gate.Ended })
			assert.Equal(t, []int{api.ExitWaited}, a.gates.codes())
		}))
	}
}

// The pods of these tests have two gated containers, or a shim that behaves in an unusual way.

func twoContainers(c *Config) { c.Containers = []string{"app", "side"} }

// steal lets another pod hold the start lock.
func (w *world) steal() {
	l := w.server.lease(startSlot)
	l.Holder, l.RenewTime, l.Annotations = "other_u", time.Now(), nil
	w.server.put(&l)
}

// A first grant that arrives late must start no child after the loss of the start lock.
func TestGrantsForbidAStartAfterLostStartLock(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.startsUnderLock(newPatient("readiness"), func(c *Config) { c.Slots = []string{theSlot} })
		before := len(a.gates.given())
		w.steal()
		w.within(10*time.Second, "the deadline moves", func() bool { return len(a.gates.given()) > before })
		w.pass(10 * time.Second)
		last := a.gates.given()[len(a.gates.given())-1]
		assert.NotZero(t, last.StartBy)
		assert.Less(t, last.StartBy, w.clock())
	})
}

// After a leap, the start lock may have expired.
func TestChildStartsOnlyAfterRenewalThatFollowsLeap(t *testing.T) {
	simulate(t, func(w *world) {
		a := w.startsUnderLock(newPatient("readiness"), twoContainers)
		w.pass(time.Second)
		a.link.set(func(l *link) { l.cut = true })
		a.leaps("s1", 7)
		a.gates.connect(gate.Report{Shim: "s2", Container: "side"})
		w.pass(time.Second)
		assert.Equal(t, gate.Waiting, a.gates.phase("s2"))
		a.link.set(func(l *link) { l.cut = false })
		w.within(10*time.Second, "second child runs", func() bool { return a.running("s2") })
	})
}

// The child dies while its shim has no connection. Then the shim connects again, and reports the hold of
// the dead child.
func TestChildThatDiesUnconnectedFreesStartLock(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.startsUnderLock(newPatient("readiness"), func(c *Config) { c.Slots = []string{theSlot} })
		hold := a.gates.hold("s1")
		close(a.gates.shims["s1"].ended)
		a.gates.report("s1", func(r *gate.Report) { r.Connected = false })
		w.pass(time.Second)
		l := w.server.lease(theSlot)
		l.Annotations["metaparticle.io/paused"] = "stop"
		w.server.put(&l)
		w.pass(time.Second)
		assert.Equal(t, a.identity(), w.starting())
		a.gates.connect(gate.Report{Shim: "s1", Container: "app", Phase: gate.Waiting, Hold: hold})
		w.within(3*time.Second, "slot is free", func() bool { return w.holder() == "" })
		w.within(3*time.Second, "start lock is free", func() bool { return w.starting() == "" })
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
		w.pass(ends.StartsWithin - time.Second)
		a.gates.connect(gate.Report{Shim: "s2", Container: "seed"})
		w.within(time.Second, "second runs", func() bool { return a.running("s2") })
		hold := a.gates.hold("s2")
		w.pass(time.Minute)
		a.gates.succeed("s2")
		w.pass(ends.StartsWithin - time.Second)
		a.connect("s3")
		w.within(time.Second, "application runs", func() bool { return a.running("s3") })
		assert.Equal(t, hold, a.gates.hold("s3"))
	})
}
