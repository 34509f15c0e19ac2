// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/show"
	"github.com/metaparticle-io/metaparticle/api"
)

// The desk cannot read the note of an earlier grant. That note may name the hold in the Lease,
// so the pod must wait until that hold expires.
func TestPodWithUnreadableNoteWaitsUntilLeaseExpires(t *testing.T) {
	simulate(t, func(w *world) {
		w.server.put(&kube.Lease{Name: theSlot, Holder: "a_u", DurationSeconds: 30, Annotations: map[string]string{
			api.HoldAnnotation: "h", api.BootAnnotation: boot}})
		a := w.start("a")
		a.gates.connect(gate.Report{Shim: "s1", Container: "app", Unproven: gate.Unreadable})
		w.pass(29 * time.Second)
		assert.Equal(t, "a_u", w.holder(), "not released")
		assert.Equal(t, gate.Waiting, a.gates.phase("s1"))
		w.within(3*time.Second, "waited out", func() bool { return a.running("s1") })
	})
}

func TestDoubtOutlivesTheShimThatReportedIt(t *testing.T) {
	simulate(t, func(w *world) {
		w.server.put(&kube.Lease{Name: theSlot, Holder: "a_u", DurationSeconds: 30, Annotations: map[string]string{
			api.HoldAnnotation: "h", api.BootAnnotation: boot}})
		a := w.start("a")
		a.gates.connect(gate.Report{Shim: "s1", Container: "app", Unproven: "h"})
		w.pass(time.Second)
		a.gates.report("s1", func(r *gate.Report) { r.Connected, r.Dead = false, true })
		w.pass(5 * time.Second)
		assert.Equal(t, "a_u", w.holder(), "not released")
		a.gates.connect(gate.Report{Shim: "s2", Container: "app", Unproven: "h"})
		w.pass(20 * time.Second)
		assert.Equal(t, gate.Waiting, a.gates.phase("s2"))
		w.within(5*time.Second, "waited out", func() bool { return a.running("s2") })
	})
}

func TestShimThatConnectsDuringAHoldJoinsIt(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.start("a", func(c *Config) { c.Containers = []string{"app", "helper"} })
		a.connect("s1")
		w.within(time.Second, "first runs", func() bool { return a.running("s1") })
		w.pass(10 * time.Second)
		a.gates.connect(gate.Report{Shim: "s2", Container: "helper"})
		w.within(time.Second, "second runs", func() bool { return a.running("s2") })
		assert.Equal(t, a.gates.hold("s1"), a.gates.hold("s2"))
		assert.Equal(t, a.gates.shim("s1").report.Slots, a.gates.shim("s2").report.Slots, "one token")

		// The hold lasts until the last of its children is dead.
		a.gates.end("s1")
		w.pass(time.Minute)
		assert.Equal(t, a.identity(), w.holder())
		// A fresh shim of the first container joins the hold, too.
		a.gates.report("s1", func(r *gate.Report) { r.Connected, r.Dead = false, true })
		a.connect("s3")
		w.within(time.Second, "third runs", func() bool { return a.running("s3") })
		assert.Equal(t, a.gates.hold("s2"), a.gates.hold("s3"))
		a.gates.end("s2")
		a.gates.end("s3")
		w.within(time.Second, "released", func() bool { return w.holder() == "" })
	})
}

func TestDoubtInAContainerDrainsOtherContainersChildren(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.start("a", func(c *Config) { c.Containers = []string{"app", "helper"} })
		// The child takes longer to stop than the time to the next renewal.
		a.connect("s1").stop = 8 * time.Second
		a.gates.connect(gate.Report{Shim: "s2", Container: "helper"})
		w.within(time.Second, "both run", func() bool { return a.running("s1") && a.running("s2") })
		hold := a.gates.hold("s1")
		w.pass(time.Second)
		renewed := w.server.lease(theSlot).RenewTime
		a.gates.report("s2", func(r *gate.Report) { r.Connected = false })
		a.gates.connect(gate.Report{Shim: "s3", Container: "helper", Unproven: hold})
		w.within(9*time.Second, "drained", func() bool { return a.gates.phase("s1") == gate.Waiting })
		w.pass(18 * time.Second)
		assert.Equal(t, gate.Waiting, a.gates.phase("s3"))
		l := w.server.lease(theSlot)
		assert.Equal(t, a.identity(), l.Holder, "never released")
		assert.Equal(t, renewed, l.RenewTime, "nor renewed")
		w.within(10*time.Second, "waited out", func() bool { return a.running("s1") && a.running("s3") })
		assert.NotEqual(t, hold, a.gates.hold("s3"))
	})
}

func TestDoubtOfFreshShimDrainsTheEarlierChild(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.start("a")
		a.connect("s1")
		w.within(time.Second, "first runs", func() bool { return a.running("s1") })
		hold := a.gates.hold("s1")
		a.gates.connect(gate.Report{Shim: "s2", Container: "app", Unproven: hold})
		w.pass(100 * time.Millisecond)
		assert.Equal(t, gate.Draining, a.gates.phase("s1"))
		assert.Equal(t, gate.Waiting, a.gates.phase("s2"), "not while the first may live")
		w.pass(200 * time.Millisecond)
		require.Equal(t, gate.Waiting, a.gates.phase("s1"))
		a.gates.report("s2", func(r *gate.Report) { r.Unproven = "" })
		w.within(2*time.Second, "second runs", func() bool { return a.running("s2") })
		assert.NotEqual(t, hold, a.gates.hold("s2"))
		assert.False(t, a.running("s1"))
	})
}

func TestRestartedAgentTellsShimThatSlotWasLost(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.start("a")
		a.connect("s1")
		w.within(time.Second, "child runs", func() bool { return a.running("s1") })
		a.kill()
		l := w.server.lease(theSlot)
		l.Holder = "somebody"
		w.server.put(&l)
		a = w.start("a")
		a.gates.connect(a.gates.shim("s1").report)
		w.within(time.Second, "drained", func() bool { return a.gates.phase("s1") == gate.Waiting })
		assert.Equal(t, []string{show.ReasonLost}, a.gates.told())
	})
}

func TestRestartedAgentKeepsChildRunningDuringAnOutage(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.start("a")
		a.connect("s1")
		w.within(time.Second, "child runs", func() bool { return a.running("s1") })
		w.pass(time.Second)
		a.kill()
		a.link.set(func(l *link) { l.cut = true })
		a = w.start("a")
		a.gates.connect(a.gates.shim("s1").report)
		w.pass(10 * time.Second)
		assert.True(t, a.running("s1"))
		assert.Empty(t, a.gates.given())
		assert.Empty(t, a.gates.told())
	})
}

func TestAgentGrantsNothingWhileAnUnkillableChildLives(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.start("a", func(c *Config) { c.Containers = []string{"app", "helper"} })
		a.connect("s1").stuck = true
		w.within(time.Second, "child runs", func() bool { return a.running("s1") })
		a.link.set(func(l *link) { l.cut = true })
		w.pass(40 * time.Second)
		assert.Equal(t, gate.Draining, a.gates.phase("s1"))
		a.link.set(func(l *link) { l.cut = false })
		a.gates.connect(gate.Report{Shim: "s2", Container: "helper"})
		renewed := w.server.lease(theSlot).RenewTime
		w.pass(2 * time.Minute)
		assert.Equal(t, gate.Waiting, a.gates.phase("s2"))
		assert.Equal(t, renewed, w.server.lease(theSlot).RenewTime, "others may have it, this pod may not")
		a.gates.report("s1", func(r *gate.Report) { r.Phase = gate.Waiting })
		w.within(time.Second, "both run", func() bool { return a.running("s1") && a.running("s2") })
	})
}

func TestPodWithoutWaitingShimAcquiresNoSlot(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a, b := w.pair()
		// The child crashes, and its container waits in back-off.
		a.gates.end("s1")
		w.pass(100 * time.Millisecond)
		assert.True(t, b.running("s2"))
		// The fresh shim is frozen, and could not use a grant. So the pod still does not compete.
		a.gates.report("s1", func(r *gate.Report) { r.Connected, r.Dead = false, true })
		a.gates.connect(gate.Report{Shim: "s3", Container: "app", Silent: true})
		b.gates.end("s2")
		w.pass(time.Minute)
		assert.Empty(t, w.holder())
		a.gates.report("s3", func(r *gate.Report) { r.Silent = false })
		w.within(time.Second, "thawed", func() bool { return a.running("s3") })
	})
}

func TestOnlyLatestShimOfAContainerGetsGrants(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.start("a")
		a.gates.connect(gate.Report{Shim: "current", Container: "app", Began: 2})
		w.within(time.Second, "child runs", func() bool { return a.running("current") })
		w.pass(time.Second)
		a.kill()
		a = w.start("a")
		a.gates.connect(a.gates.shim("current").report)
		a.gates.connect(gate.Report{Shim: "left", Container: "app", Began: 1})
		w.pass(time.Minute)
		assert.True(t, a.running("current"), "the current container's child is not drained")
		assert.Equal(t, gate.Waiting, a.gates.phase("left"))
	})
}

func TestAgentForgetsHoldsThatAreOver(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.start("a")
		a.connect("s1")
		for range 20 {
			w.within(5*time.Second, "child runs", func() bool { return a.running("s1") })
			a.agent.Yield()
			w.within(5*time.Second, "drained", func() bool { return !a.running("s1") })
		}
		assert.LessOrEqual(t, len(a.agent.unit.shims.Begun()), 2)
	})
}
