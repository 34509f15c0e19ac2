// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/turn"
	"github.com/metaparticle-io/metaparticle/api"
)

// numbered returns a revision of the workload with the given number and template hash.
func numbered(number int64, hash string) api.Revision {
	return api.Revision{Workload: oldRevision.Workload, Number: number, Hash: hash}
}

// proven starts two old pods, and lets the first one serve for longer than [turn.Rest]. By then the
// revision of both pods is proven.
func (w *world) proven() (a, a2 *pod) {
	w.free(theSlot, nextLease)
	a = w.up("a", of(oldRevision))
	w.within(time.Second, "the old child runs", a.runs)
	a2 = w.up("a2", of(oldRevision))
	w.pass(turn.Rest + time.Second)
	return a, a2
}

// fails ends the shim's child, so that the turn fails. Then the shim of the restarted container
// connects, with the id in the argument "next".
func (p *pod) fails(shim, next gate.ShimID) {
	p.gates.end(shim)
	p.world.within(time.Second, "the turn is over", func() bool { return p.world.holder() != p.identity() })
	p.gates.report(shim, func(r *gate.Report) { r.Dead = true })
	p.connect(next)
}

func TestUndoneRolloutReturnsSlotToTheOldRevision(t *testing.T) {
	simulate(t, func(w *world) {
		a, a2 := w.proven()
		b := w.up("b", of(newRevision))
		w.within(time.Second, "the turn begins", b.runs)
		w.pass(2 * time.Second)
		undone := w.up("a3", of(numbered(8, oldRevision.Hash)))
		w.pass(time.Second)
		b.remove()
		w.within(200*time.Millisecond, "the old child runs again", a.runs)
		w.pass(time.Minute)
		for _, p := range []*pod{a, a2, undone} {
			assert.Contains(t, p.ready(), "True", p.config.PodName)
		}
		w.pass(time.Hour)
		assert.Equal(t, 3, w.starts(), "the same template needs no turn")
	})
}

func TestSecondRolloutReplacesAnUnfinishedRollout(t *testing.T) {
	for name, c := range map[string]struct {
		served time.Duration
		reason string
	}{
		"while the first waits":   {10 * time.Second, "False WaitsForItsTurn"},
		"in the first one's turn": {turn.Rest, "False InItsTurn"},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				w.free(theSlot, nextLease)
				w.up("a", of(oldRevision))
				w.pass(time.Second)
				a2 := w.up("a2", of(oldRevision))
				w.pass(c.served)
				first := w.up("b", of(newRevision))
				w.pass(2 * time.Second)
				require.Equal(t, c.reason, first.ready())
				second := w.up("c", of(numbered(8, "newest")))
				w.pass(100 * time.Millisecond)
				first.remove()
				w.within(2*turn.Rest, "the newest revision runs", second.runs)
				w.within(2*turn.Proof, "the newest revision is proven", func() bool { return second.ready() == "True Holding" })
				assert.Equal(t, "True StandingBy", a2.ready())
				w.pass(time.Hour)
				assert.True(t, second.runs())
			})
		})
	}
}

func TestReapplyingATemplateResetsItsTurnCount(t *testing.T) {
	simulate(t, func(w *world) {
		a, _ := w.proven()
		b := w.up("b", of(newRevision))
		w.within(time.Second, "the first turn", b.runs)
		b.fails("b", "b2")
		w.within(2*time.Minute, "the second turn", func() bool { return b.running("b2") })
		b.fails("b2", "b3")
		b.delete()
		close(b.stop)
		w.pass(turn.Rest + time.Second)
		require.True(t, a.runs())
		require.Equal(t, 2, w.rollout().Turns[0].Count)

		again := w.up("d", of(numbered(9, newRevision.Hash)))
		w.within(time.Second, "the first turn of the template that is applied again", again.runs)
		w.within(2*turn.Proof, "proven", func() bool { return again.ready() == "True Holding" })
	})
}

func TestFirstRevisionOfRecreatedWorkloadTakesNoTurn(t *testing.T) {
	simulate(t, func(w *world) {
		a, a2 := w.proven()
		anew := func(number int64, hash string) api.Revision {
			return api.Revision{Workload: "1c8f", Number: number, Hash: hash}
		}
		b := w.up("b", of(anew(1, newRevision.Hash)))
		w.pass(time.Second)
		assert.Equal(t, "True StandingBy", b.ready(), "the pods take no turns")
		a2.remove()
		a.remove()
		w.within(200*time.Millisecond, "the new workload's pod runs", b.runs)
		w.pass(turn.Rest + time.Second)
		c := w.up("c", of(anew(2, "next")))
		w.within(5*time.Second, "its next revision has its turn", c.runs) // the holder leaves its Services first
		w.within(2*turn.Proof, "proven", func() bool { return c.ready() == "True Holding" })
	})
}

func TestPausedSlotDelaysRolloutUntilThePauseEnds(t *testing.T) {
	simulate(t, func(w *world) {
		a, _ := w.proven()
		w.annotate(theSlot, api.PausedAnnotation, string(api.PauseHold))
		w.pass(10 * time.Second)
		b := w.up("b", of(newRevision))
		w.pass(5 * time.Minute)
		assert.True(t, a.runs())
		assert.Equal(t, "False WaitsForItsTurn", b.ready())
		assert.Contains(t, b.message(), "which is paused")
		w.annotate(theSlot, api.PausedAnnotation, "")
		w.within(20*time.Second, "the turn begins", b.runs)
		w.within(2*turn.Proof, "proven", func() bool { return b.ready() == "True Holding" })
	})
}

// While the field spec.paused of a Deployment is true, the controller keeps pods of both
// revisions.
func TestNewRevisionBecomesProvenWhileOldPodsRemain(t *testing.T) {
	simulate(t, func(w *world) {
		a, a2 := w.proven()
		b := w.up("b", of(newRevision))
		w.within(time.Second, "the turn begins", b.runs)
		w.pass(time.Hour)
		assert.Equal(t, "True Holding", b.ready())
		for _, old := range []*pod{a, a2} {
			assert.Equal(t, "True StandingBy", old.ready())
		}
		assert.Equal(t, 2, w.starts())
	})
}

// Two Deployments share a lock. The revision of one Deployment is broken, and a pod of the
// other Deployment stands by.
func TestBrokenWorkloadLosesItsLockToAnotherWorkload(t *testing.T) {
	another := func(c *Config) {
		c.Workload, c.Revision = "Deployment/other", api.Revision{Workload: "2d7a", Number: 3, Hash: "other"}
	}
	t.Run("its only pod ends", func(t *testing.T) {
		simulate(t, func(w *world) {
			w.free(theSlot, nextLease)
			b := w.up("b", of(newRevision))
			w.within(time.Second, "the broken application runs", b.runs)
			other := w.up("o", another)
			w.pass(time.Second)
			b.fails("b", "b2")
			w.within(100*time.Millisecond, "the other one runs", other.runs)
			w.pass(time.Hour)
			assert.True(t, other.runs())
			assert.Equal(t, 2, w.starts())
		})
	})
	t.Run("its turn ends, and no old pod is left", func(t *testing.T) {
		simulate(t, func(w *world) {
			a, a2 := w.proven()
			other := w.up("o", another)
			b := w.up("b", of(newRevision))
			w.within(time.Second, "the turn begins", b.runs)
			a.remove()
			a2.remove()
			b.fails("b", "b2")
			w.within(2*time.Second, "the other one runs", other.runs)
			w.pass(time.Hour)
			assert.True(t, other.runs())
		})
	})
	t.Run("its turn ends, and the old version serves again", func(t *testing.T) {
		simulate(t, func(w *world) {
			a, a2 := w.proven()
			other := w.up("o", another)
			b := w.up("b", of(newRevision))
			w.within(time.Second, "the turn begins", b.runs)
			b.fails("b", "b2")
			w.within(200*time.Millisecond, "the old child runs again", a.runs)
			a2.remove()
			a.remove()
			w.within(2*time.Second, "the other one runs", other.runs)
		})
	})
}
