// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

// The controller's minReadySeconds are a minute. The application serves for 20 s, stops serving for
// 40 s, and so on.
func TestTurnOfAFlappingRevisionEnds(t *testing.T) {
	simulate(t, func(w *world) {
		a, b := w.rolling(func(c *Config) { c.MinReady = time.Minute })
		b.connect("s3")
		w.within(time.Second, "the new child runs", func() bool { return b.running("s3") })
		began := time.Now()
		for b.running("s3") && time.Since(began) < time.Hour {
			w.pass(20 * time.Second)
			b.gates.report("s3", func(r *gate.Report) { r.Starting = true })
			w.pass(40 * time.Second)
			b.gates.report("s3", func(r *gate.Report) { r.Starting = false })
		}
		// A turn has a minute for the start, and then time for three proofs of 70 s.
		assert.InDelta(t, (time.Minute + 3*70*time.Second).Seconds(), time.Since(began).Seconds(), 60)
		b.gates.report("s3", func(r *gate.Report) { r.Phase, r.Hold = gate.Waiting, b.gates.grants[0].Hold })
		w.within(time.Minute, "the old child runs again", func() bool { return a.running("s1") })
		assert.Equal(t, oldRevision, w.rollout().Proven)
	})
}

// The only old pod crashes, and comes back after a pod of a newer version has taken the free slot. The
// newer version serves for 20 s, stops serving for 40 s, and so on, so it is never proven.
func TestFlappingRevisionWithoutTurnYields(t *testing.T) {
	simulate(t, func(w *world) {
		a, b := w.stalled(func(c *Config) { c.MinReady = time.Minute })
		a.crash("s1")
		w.pass(2 * time.Second)
		assert.Equal(t, b.identity(), w.holder())
		a.connect("s1b")
		began := time.Now()
		for b.running("s3") && time.Since(began) < time.Hour {
			w.pass(20 * time.Second)
			b.gates.report("s3", func(r *gate.Report) { r.Starting = true })
			w.pass(40 * time.Second)
			b.gates.report("s3", func(r *gate.Report) { r.Starting = false })
		}
		assert.InDelta(t, (time.Minute + 3*70*time.Second).Seconds(), time.Since(began).Seconds(), 60)
		b.gates.report("s3", func(r *gate.Report) { r.Phase, r.Hold = gate.Waiting, b.gates.grants[0].Hold })
		w.within(time.Minute, "the old child runs again", func() bool { return a.running("s1b") })
		assert.Equal(t, 1, w.rollout().Turns[0].Count)
	})
}

// The application never serves in its turn. The pod loses its hold again and again, because the
// pod's network fails for 18 s of each 45 s.
func TestTurnEndsDespiteLostHolds(t *testing.T) {
	simulate(t, func(w *world) {
		a, b := w.rolling()
		b.gates.slow = true
		b.connect("s3")
		w.within(time.Second, "the turn begins", func() bool { return w.holder() == b.identity() })
		told := 0
		drain := func() {
			if len(b.gates.told()) > told {
				told = len(b.gates.told())
				last := b.gates.grants[len(b.gates.grants)-1].Hold
				b.gates.report("s3", func(r *gate.Report) { r.Phase, r.Hold = gate.Waiting, last })
			}
		}
		began := time.Now()
		for w.holder() == b.identity() && time.Since(began) < time.Hour {
			at := int(time.Since(began)/time.Second) % 45
			b.link.set(func(l *link) { l.cut = at >= 27 })
			w.pass(time.Second)
			drain()
		}
		b.link.set(func(l *link) { l.cut = false })
		assert.Less(t, time.Since(began), 3*time.Minute)
		w.within(time.Minute, "the old child runs again", func() bool { return a.running("s1") })
	})
}
