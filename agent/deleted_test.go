// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

// delete is somebody's kubectl delete: no answer before it said so.
func (p *pod) delete() { p.link.set(func(l *link) { l.deleted = true }) }

// A kubelet whose SIGTERM came too early leaves a shim waiting in a pod that is
// about to end.
func TestAHoldThatBeginsInAPodThatIsBeingDeletedIsHandedOver(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		b := w.start("b")
		b.gates.connect(gate.Report{Shim: "s2", Container: "app"})
		w.within(time.Second, "child runs", func() bool { return b.running("s2") })
		a := w.start("a")
		a.gates.connect(gate.Report{Shim: "s1", Container: "app"}).stop = 25 * time.Second
		w.pass(time.Second)
		a.delete()
		b.gates.end("s2")
		w.within(time.Second, "nobody can know yet", func() bool { return a.running("s1") })
		w.within(time.Second, "it is known", func() bool { return a.gates.phase("s1") == gate.Draining })
		assert.Equal(t, []string{reasonPodDeleted}, a.gates.told())
		w.pass(20 * time.Second)
		assert.Equal(t, gate.Draining, a.gates.phase("s1"), "the whole grace, as if the kubelet had asked")
		w.within(6*time.Second, "released", func() bool { return w.holder() == "" })
		w.pass(time.Minute)
		assert.Empty(t, w.holder(), "it never competes again")
		assert.Len(t, a.gates.shim("s1").ran, 1)
	})
}

// The kubelet knows how to end what ran before: with the preStop hook first, which
// may need the application.
func TestAHoldFromBeforeItsPodWasDeletedGoesOn(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.start("a")
		a.gates.connect(gate.Report{Shim: "s1", Container: "app"})
		w.within(time.Second, "child runs", func() bool { return a.running("s1") })
		w.pass(time.Second)
		a.delete()
		w.pass(time.Second)
		a.kill()
		a = w.start("a")
		a.gates.connect(a.gates.shim("s1").report)
		w.pass(time.Minute)
		require.True(t, a.agent.leaving, "the new process has heard of the deletion")
		assert.True(t, a.running("s1"))
		assert.Empty(t, a.gates.told())
		a.gates.end("s1")
		a.gates.connect(gate.Report{Shim: "s2", Container: "app"})
		w.pass(time.Minute)
		assert.Empty(t, w.holder(), "and is the last one")
	})
}

// To let go of it would not end what runs: with the gate "pod" that takes a restart,
// and a kubelet that ends a pod restarts nothing.
func TestAHoldIsKeptInADeletedPodWhoseKubeletAloneCanStopIt(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.start("a", func(c *Config) { c.KubeletStops = true })
		w.pass(time.Second)
		a.delete()
		a.gates.connect(gate.Report{Shim: "s1", Container: "app"})
		w.pass(time.Minute)
		require.True(t, a.agent.leaving)
		assert.True(t, a.running("s1"))
		assert.Equal(t, a.identity(), w.holder())
	})
}

func TestAStandbyThatHeardOfItsDeletionDoesNotCompete(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.start("a", func(*Config) { w.pods["a"].delete() })
		w.within(time.Second, "its first status is stored", func() bool { return a.ready() != "unknown" })
		w.pass(time.Second)
		a.gates.connect(gate.Report{Shim: "s1", Container: "app"})
		w.pass(time.Minute)
		assert.Empty(t, w.holder())
		assert.Empty(t, a.gates.given())
	})
}

// A pod of a StatefulSet that was deleted by force, on a node that is cut off, may
// meet the next one of its name.
func TestAnotherPodOfTheNameKeepsItsStatus(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.start("a")
		a.gates.connect(gate.Report{Shim: "s1", Container: "app"})
		w.pass(time.Second)
		require.Equal(t, "True Holding", a.ready())
		before := len(a.link.patches)
		a.link.set(func(l *link) { l.uid = "another" })
		a.gates.end("s1")
		w.pass(time.Minute)
		assert.Len(t, a.link.patches, before)
	})
}
