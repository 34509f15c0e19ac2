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
	"github.com/metaparticle-io/metaparticle/agent/turn"
	"github.com/metaparticle-io/metaparticle/api"
)

// startLocked gives a pod of the revision a singleton, a start lock, and a readiness probe.
func startLocked(app *patient, r api.Revision) func(c *Config) {
	return func(c *Config) {
		of(r)(c)
		c.StartSlots = []string{startSlot}
		app.probed("readiness")(c)
	}
}

// lockedPods starts two old pods with a start lock, and waits until the holder may yield.
func (w *world) lockedPods(app *patient) (a, a2 *pod) {
	w.free(theSlot, nextLease, startSlot)
	a = w.start("a", startLocked(app, oldRevision))
	a.connect("s1")
	w.within(time.Minute, "the old child runs", func() bool { return a.running("s1") })
	a2 = w.start("a2", startLocked(app, oldRevision))
	a2.connect("s2")
	w.pass(api.TurnRest + 30*time.Second)
	return a, a2
}

// lockStarts changes the Lease of the start lock, as another pod or a person does.
func (w *world) lockStarts(change func(l *kube.Lease)) {
	l := w.server.lease(startSlot)
	if l.Annotations == nil {
		l.Annotations = map[string]string{}
	}
	change(&l)
	w.server.put(&l)
}

func pauseStarts(l *kube.Lease)  { l.Annotations[api.PausedAnnotation] = string(api.PauseHold) }
func resumeStarts(l *kube.Lease) { delete(l.Annotations, api.PausedAnnotation) }

func TestStartLockDelaysTheNextTurn(t *testing.T) {
	free := func(w *world) { w.lockStarts(func(l *kube.Lease) { l.Holder = "" }) }
	heldFor := func(d time.Duration) func(w *world) {
		return func(w *world) {
			w.lockStarts(func(l *kube.Lease) {
				l.Holder, l.AcquireTime, l.RenewTime, l.DurationSeconds = "other_u", time.Now().Add(-d), time.Now(), 60
			})
		}
	}
	for name, c := range map[string]struct {
		lock, unlock func(w *world)
		message      string // empty if the turn begins
	}{
		"held for a minute": {heldFor(time.Minute), free, ""},
		"held for longer than slowStart": {heldFor(slowStart + time.Second), free,
			"start-lock.db is held by other, whose application starts slowly, so revision 7 does not ask yet"},
		"paused": {func(w *world) { w.lockStarts(pauseStarts) }, func(w *world) { w.lockStarts(resumeStarts) },
			"start-lock.db is paused, so revision 7 does not ask yet"},
		"without a Lease": {func(w *world) { w.server.remove(startSlot) }, func(w *world) { w.free(startSlot) },
			"start-lock.db is not known, so revision 7 does not ask yet"},
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			app := newPatient()
			a, a2 := w.lockedPods(app)
			c.lock(w)
			w.pass(time.Second)
			b := w.start("b", startLocked(app, newRevision))
			b.connect("s3")
			for range 50 {
				w.pass(time.Second)
				assert.True(t, c.message == "" || a.running("s1") || a2.running("s2"), "somebody serves")
			}
			assert.Equal(t, c.message == "", !a.running("s1"))
			if c.message != "" {
				assert.Equal(t, "False WaitsForItsTurn", b.ready())
				assert.Equal(t, c.message, b.message())
				assert.Empty(t, w.rollout().Turns)
			}
			c.unlock(w)
			w.within(15*time.Second, "the new child runs", func() bool { return b.running("s3") })
			w.within(15*time.Second, "the new pod is ready", func() bool { return b.ready() == "True Holding" })
		}))
	}
}

// A child of a lost hold cannot be killed for a while, and still counts as starting. Meanwhile the
// pod watches the start lock, which no pod needs any more.
func TestPodAsksOnceItsStuckChildHasEnded(t *testing.T) {
	simulate(t, func(w *world) {
		a, a2 := w.lockedPods(newPatient())
		a2.kill()
		a.gates.end("s1")
		w.pass(100 * time.Millisecond)
		a.gates.report("s1", func(r *gate.Report) { r.Dead = true })
		b := w.start("b", startLocked(newPatient("readiness"), newRevision))
		b.connect("s3").stuck = true
		w.within(turn.LastResort, "the new pod takes the free slot", func() bool { return b.running("s3") })
		b.link.set(func(l *link) { l.cut = true })
		a.connect("s4")
		w.within(2*time.Minute, "the old child runs", func() bool { return a.running("s4") })
		w.within(time.Minute, "the start lock is free", func() bool { return w.starting() == "" })
		b.link.set(func(l *link) { l.cut = false })
		w.pass(2 * api.TurnRest)
		require.True(t, a.running("s4"))

		lost := b.gates.hold("s3")
		b.gates.report("s3", func(r *gate.Report) { r.Phase, r.Hold = gate.Waiting, lost })
		w.within(10*time.Second, "the turn begins", func() bool { return w.holder() == b.identity() })
	})
}
