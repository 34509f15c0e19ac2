// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/turn"
)

// A rollout of a version that never serves stalls. Then the zone of the old pods is cut off. The pod
// of the broken version takes the slot, because the slot has been free for [turn.LastResort].
func TestOldRevisionServesAgainAfterZoneOutage(t *testing.T) {
	simulate(t, func(w *world) {
		a, b := w.rolling()
		a2 := w.pods["a2"]
		b.kill()
		b = w.start("b", newPatient("readiness").probed("readiness"))
		b.connect("s3")
		w.within(30*time.Second, "the turn begins", func() bool { return w.holder() == b.identity() })
		w.within(3*time.Minute, "the old version serves again", func() bool { return a.running("s1") || a2.running("s2") })
		w.pass(10 * time.Second)
		for _, p := range []*pod{a, a2} {
			p.link.set(func(l *link) { l.cut = true })
		}
		w.pass(100 * time.Second)
		assert.Equal(t, b.identity(), w.holder(), "no old pod is left, as far as the agents know")
		for _, p := range []*pod{a, a2} {
			p.link.set(func(l *link) { l.cut = false })
		}
		w.within(5*time.Minute, "the old version serves again", func() bool { return a.running("s1") || a2.running("s2") })
		w.pass(time.Minute)
		assert.NotEqual(t, b.identity(), w.holder(), "the newer revision waits for its next turn")
	})
}

// The only old pod crashes, and its container restarts later than a pod of a newer version takes the
// free slot. The newer version hangs.
func TestOldRevisionServesAgainAfterASingleCrash(t *testing.T) {
	for name, c := range map[string]struct {
		turnFirst bool
		backOff   time.Duration
	}{
		"before the first turn": {false, 2 * time.Second},
		"after a failed turn":   {true, 40 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				a, b := w.stalled(newPatient("readiness").probed("readiness"))
				if c.turnFirst {
					w.within(3*time.Minute, "the turn begins", func() bool { return w.holder() == b.identity() })
					w.within(3*time.Minute, "the old version serves again", func() bool { return a.running("s1") })
					w.pass(20 * time.Second)
				}
				a.crash("s1")
				w.pass(c.backOff)
				assert.Equal(t, b.identity(), w.holder())
				a.connect("s1b")
				w.within(5*time.Minute, "the old version serves again", func() bool { return a.running("s1b") })
			})
		})
	}
}

// A Ready pod of the newer version would make the controller delete the last old pod.
func TestUnprovenPodIsNotReadyWithoutATurn(t *testing.T) {
	simulate(t, func(w *world) {
		a, b := w.stalled()
		a.crash("s1")
		w.pass(2 * time.Second)
		assert.Equal(t, b.identity(), w.holder())
		a.connect("s1b")
		w.pass(3 * time.Second)
		b.gates.end("s3")
		w.pass(time.Second)
		assert.Equal(t, []string{"False"}, b.readiness())
	})
}

// A good newer version keeps a slot that no old pod could take.
func TestGoodRevisionKeepsTheSlotWithoutATurn(t *testing.T) {
	simulate(t, func(w *world) {
		a, b := w.stalled()
		a.crash("s1")
		w.pass(2 * time.Second)
		a.connect("s1b")
		w.pass(turn.Proof + time.Second)
		assert.Equal(t, "True", b.readiness()[len(b.readiness())-1])
		w.pass(10 * time.Minute)
		assert.Equal(t, b.identity(), w.holder())
		assert.Equal(t, newRevision, w.rollout().Proven)
		assert.False(t, a.running("s1b"))
	})
}

// stalled starts a pod of the old revision, and a pod of the newer revision that waits for its turn.
func (w *world) stalled(newer ...func(c *Config)) (a, b *pod) {
	w.free(theSlot, nextLease)
	a = w.start("a", of(oldRevision))
	a.connect("s1")
	w.pass(turn.Rest / 2)
	b = w.start("b", append(newer, of(newRevision))...)
	b.connect("s3")
	w.pass(5 * time.Second)
	return a, b
}

// crash ends the child of the shim, and lets the shim report that its child is dead.
func (p *pod) crash(shim gate.ShimID) {
	p.gates.end(shim)
	p.gates.report(shim, func(r *gate.Report) { r.Dead = true })
}
