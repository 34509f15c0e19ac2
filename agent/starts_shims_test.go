// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/api"
)

// The pods of these tests have two gated containers, or a shim that behaves in an unusual way.

func twoContainers(c *Config) { c.Containers = []string{"app", "side"} }

// steal lets another pod hold the start lock.
func (w *world) steal() {
	l := w.server.lease(startSlot)
	l.Holder, l.RenewTime, l.Annotations = "other_u", time.Now(), nil
	w.server.put(&l)
}

// The shim s1 connects to the new agent process at once, and its application is ready. The shim s2, whose
// child is still starting, connects later.
func TestRestartedAgentKeepsStartLockForEachChild(t *testing.T) {
	simulate(t, func(w *world) {
		app := newPatient("readiness")
		a := w.startsUnderLock(app, twoContainers)
		a.gates.connect(gate.Report{Shim: "s2", Container: "side"})
		w.within(time.Second, "second child runs", func() bool { return a.running("s2") })
		a.gates.report("s2", func(r *gate.Report) { r.Starting = true })
		app.be(false, "readiness")
		hold := a.gates.hold("s2")
		a = w.restart(a)
		w.pass(9 * time.Second)
		assert.Equal(t, a.identity(), w.starting(), "nothing is known about the child of s2")
		a.gates.connect(gate.Report{Shim: "s2", Container: "side", Phase: gate.Running, Hold: hold, Starting: true})
		w.pass(time.Minute)
		assert.Equal(t, a.identity(), w.starting())
		a.gates.report("s2", func(r *gate.Report) { r.Starting = false })
		w.within(6*time.Second, "start lock is free", func() bool { return w.starting() == "" })
	})
}

func TestKilledShimFreesTheStartLock(t *testing.T) {
	simulate(t, func(w *world) {
		a := w.startsUnderLock(newPatient("readiness"))
		a.gates.report("s1", func(r *gate.Report) { r.Connected, r.Dead = false, true })
		w.within(time.Second, "start lock is free", func() bool { return w.starting() == "" })
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

func TestChildAwaitsNextHoldOfStolenStartLock(t *testing.T) {
	simulate(t, func(w *world) {
		a := w.startsUnderLock(newPatient("readiness"), twoContainers)
		w.steal()
		w.pass(time.Second / 10)
		a.gates.connect(gate.Report{Shim: "s2", Container: "side"})
		w.pass(3 * time.Second)
		assert.Equal(t, gate.Waiting, a.gates.phase("s2"))
		assert.True(t, a.running("s1"))
		l := w.server.lease(startSlot)
		l.Holder = ""
		w.server.put(&l)
		w.within(2*time.Second, "second child runs", func() bool { return a.running("s2") })
		assert.Equal(t, a.identity(), w.starting())
	})
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

// The child of a lost slot cannot be killed. If its pod kept the start lock, the next holder of the slot
// could start no child.
func TestPodWithoutItsSlotNeverRenewsStartLock(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.startsUnderLock(newPatient("readiness"), func(c *Config) { c.Slots = []string{theSlot} })
		a.gates.connect(gate.Report{Shim: "s1", Container: "app", Phase: gate.Running, Hold: a.gates.hold("s1")}).stuck = true
		l := w.server.lease(theSlot)
		l.Holder, l.Annotations = "other_u", nil
		w.server.put(&l)
		b := w.start("b", starter(newPatient()))
		b.gates.connect(gate.Report{Shim: "s2", Container: "app"})
		w.within(75*time.Second, "other pod starts", func() bool { return b.running("s2") })
	})
}

// The kubelet never starts the container "side", so nothing proves a death in that container.
func TestSilentContainerKeepsStartLockOnlyBriefly(t *testing.T) {
	simulate(t, func(w *world) {
		app := newPatient("readiness")
		a := w.restart(w.startsUnderLock(app, twoContainers))
		app.be(false, "readiness")
		w.within(api.DefaultLeaseDuration+6*time.Second, "start lock is free", func() bool { return w.starting() == "" })
		assert.True(t, a.running("s1"))
	})
}

func TestStopAwaitsTheReleaseOfStartLock(t *testing.T) {
	for name, heals := range map[string]bool{"server comes back": true, "server stays away": false} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				a := w.startsUnderLock(newPatient("readiness"))
				a.link.set(func(l *link) { l.cut = true })
				close(a.stop)
				a.gates.end("s1")
				w.pass(5 * time.Second)
				require.Empty(t, a.done)
				if heals {
					a.link.set(func(l *link) { l.cut = false })
				}
				w.within(api.DefaultLeaseDuration+10*time.Second, "the agent ends", func() bool { return len(a.done) > 0 })
				assert.Equal(t, heals, w.starting() == "")
			})
		})
	}
}
