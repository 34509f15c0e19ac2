// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/show"
	"github.com/metaparticle-io/metaparticle/agent/turn"
	"github.com/metaparticle-io/metaparticle/api"
)

var (
	oldRevision = api.Revision{Workload: "0b9e", Number: 6, Hash: "old"}
	newRevision = api.Revision{Workload: "0b9e", Number: 7, Hash: "new"}
	nextLease   = api.NextLease(theSlot)
)

func of(r api.Revision) func(c *Config) { return func(c *Config) { c.Revision = r } }

// The method "rolling" starts two old pods, and waits until the first one holds and its revision is
// proven. Then the method adds a new pod.
func (w *world) rolling(change ...func(c *Config)) (a, b *pod) {
	w.free(theSlot, nextLease)
	a = w.start("a", of(oldRevision))
	a.connect("s1")
	w.within(time.Second, "the old child runs", func() bool { return a.running("s1") })
	w.start("a2", of(oldRevision)).connect("s2")
	w.pass(turn.Rest + time.Second)
	b = w.start("b", append([]func(c *Config){of(newRevision)}, change...)...)
	return a, b
}

// readiness returns the statuses of the Ready condition that the API server has stored, one
// after the other, without repetitions.
func (p *pod) readiness() []string {
	p.link.mu.Lock()
	defer p.link.mu.Unlock()
	var all []string
	for _, patch := range p.link.patches {
		var l look
		require.NoError(p.world.t, json.Unmarshal([]byte(patch), &l))
		if len(l.Status.Conditions) > 0 {
			all = append(all, l.Status.Conditions[0].Status)
		}
	}
	return slices.Compact(all)
}

func (w *world) rollout() turn.Rollout {
	l := w.server.lease(theSlot)
	return turn.Parse(l.Annotations[api.RolloutAnnotation])
}

func TestPodOfNewRevisionIsReadyOnceProven(t *testing.T) {
	simulate(t, func(w *world) {
		a, b := w.rolling()
		w.pass(time.Second)
		assert.Equal(t, "False WaitsForItsTurn", b.ready(), "its container has not started")
		assert.Empty(t, w.server.lease(nextLease).Holder)
		assert.True(t, a.running("s1"))

		b.connect("s3")
		w.within(time.Second, "the new child runs", func() bool { return b.running("s3") })
		assert.Equal(t, []time.Duration{api.DefaultGrace}, a.gates.left(), "a yield leaves the whole grace")
		w.pass(time.Second)
		assert.Equal(t, "False InItsTurn", b.ready())
		assert.Equal(t, "this pod holds "+theSlot+", for turn 1 of revision 7, and has to serve for longer", b.message())
		assert.Equal(t, "True", a.readiness()[len(a.readiness())-1])
		w.pass(turn.Proof - 2*time.Second)
		assert.Equal(t, "True StandingBy", a.ready())
		assert.Equal(t, "False InItsTurn", b.ready())
		w.within(2*time.Second, "the new pod is Ready", func() bool { return b.ready() == "True Holding" })
		assert.Equal(t, newRevision, w.rollout().Proven)
		assert.Empty(t, w.server.lease(nextLease).Holder, "the ask is cleared")

		c := w.start("c", of(newRevision))
		c.connect("s4")
		w.pass(time.Second)
		assert.Equal(t, "True StandingBy", c.ready())
		w.pass(time.Hour)
		assert.True(t, b.running("s3"))
		assert.Empty(t, w.rollout().Turns)
		assert.Equal(t, []string{"True"}, w.pods["a2"].readiness())
	})
}

func TestHolderSeesAsksAlthoughWatchesAreRefused(t *testing.T) {
	for name, broken := range map[string]func(l *link){
		"refused": func(l *link) { l.unwatched = &kube.StatusError{Code: 429} },
		"empty":   func(l *link) { l.mute, l.idle, l.orderly = true, 1, true },
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				_, b := w.rolling()
				for _, p := range w.pods {
					p.set(func(l *link) { broken(l); l.refuse = &kube.StatusError{Code: 429} })
					p.set(func(l *link) { l.refuse = nil }) // the open watches have ended
				}
				b.connect("s3")
				w.within(2*time.Minute, "the turn begins", func() bool { return b.running("s3") })
			})
		})
	}
}

func TestBrokenRevisionReturnsSlotToTheOldRevision(t *testing.T) {
	simulate(t, func(w *world) {
		a, b := w.rolling()
		b.connect("s3")
		w.within(time.Second, "the new child runs", func() bool { return b.running("s3") })
		b.gates.end("s3")
		w.within(200*time.Millisecond, "the old child runs again", func() bool { return a.running("s1") })
		assert.Equal(t, 1, w.rollout().Turns[0].Count)
		w.pass(time.Second)
		b.gates.report("s3", func(r *gate.Report) { r.Dead = true })
		b.connect("s4")
		w.pass(50 * time.Second)
		assert.Equal(t, "False WaitsForItsTurn", b.ready())
		assert.Contains(t, b.message(), "turn 1 of revision 7 failed; turn 2 comes at ")
		assert.True(t, a.running("s1"))

		w.within(30*time.Second, "the second turn", func() bool { return b.running("s4") })
		b.gates.end("s4")
		w.within(100*time.Millisecond, "the old child runs again", func() bool { return a.running("s1") })
		b.gates.report("s4", func(r *gate.Report) { r.Dead = true })
		b.connect("s5")
		w.pass(time.Minute)
		before := w.server.requests()
		w.pass(3 * time.Minute)
		assert.InDelta(t, 36, w.server.requests()-before, 4, "the holder's renewals alone")
		assert.True(t, a.running("s1"))
		assert.Equal(t, []string{"False"}, b.readiness())
		assert.Equal(t, []string{"True"}, w.pods["a2"].readiness())
	})
}

// A strict controller replaces each old pod that is not Ready. Such a controller must not see
// when the application of an old pod stops for a turn, or starts after that turn.
func TestYieldingPodStaysReadyOnlyUnderStrictControllers(t *testing.T) {
	for name, tt := range map[string]struct {
		replaces bool
		serves   []string
		hangs    []string
	}{
		"its controller would replace it": {true, []string{"True"}, []string{"True", "False"}},
		"its controller would keep it":    {false, []string{"True", "False", "True", "False", "True"}, []string{"True", "False", "True", "False"}},
	} {
		for _, hangs := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, hangs %v", name, hangs), func(t *testing.T) {
				simulate(t, func(w *world) {
					w.free(theSlot, nextLease)
					app := newPatient()
					a := w.start("a", of(oldRevision), app.probed("readiness"), func(c *Config) { c.ReplacesUnready = tt.replaces })
					a.connect("s1").stop = 3 * time.Second
					w.pass(turn.Rest + time.Second)
					require.Equal(t, "True Holding", a.ready())
					seen := len(a.link.patches) - 1
					app.be(true, "readiness")
					b := w.start("b", of(newRevision))
					b.connect("s3")
					w.within(4*time.Second, "the new child runs", func() bool { return b.running("s3") })
					b.gates.end("s3")
					w.within(time.Second, "the old child runs again", func() bool { return a.running("s1") })
					w.pass(20 * time.Second)
					if !hangs {
						app.be(false, "readiness")
					}
					w.pass(50 * time.Second)
					a.link.patches = a.link.patches[seen:]
					want := tt.serves
					if hangs {
						want = tt.hangs
					}
					assert.Equal(t, want, a.readiness())
				})
			})
		}
	}
}

func TestTurnFailsIfAgentAndApplicationEnd(t *testing.T) {
	simulate(t, func(w *world) {
		_, b := w.rolling()
		b.connect("s3")
		w.within(time.Second, "the new child runs", func() bool { return b.running("s3") })
		b.kill()
		b.gates.end("s3")
		delete(b.gates.shims, "s3")
		b = w.start("b")
		b.connect("s4")
		w.within(time.Second, "an old child runs again", func() bool { return strings.HasPrefix(w.holder(), "a") })
		w.pass(50 * time.Second)
		assert.Equal(t, "False WaitsForItsTurn", b.ready())
		assert.Equal(t, 1, w.rollout().Turns[0].Count)
		assert.False(t, b.running("s4"))
	})
}

func TestTurnContinuesIfTheAgentAloneEnds(t *testing.T) {
	simulate(t, func(w *world) {
		_, b := w.rolling()
		b.connect("s3")
		w.within(time.Second, "the new child runs", func() bool { return b.running("s3") })
		b.kill()
		b = w.start("b")
		b.gates.connect(b.gates.shim("s3").report)
		w.pass(turn.Proof + 2*time.Second)
		assert.True(t, b.running("s3"))
		assert.Equal(t, "True Holding", b.ready())
		assert.Equal(t, newRevision, w.rollout().Proven)
	})
}

// The controller's minReadySeconds are a minute, and the agent restarts after 20 s of that
// minute.
func TestPodStaysReadyDespiteAgentRestartDuringTurn(t *testing.T) {
	simulate(t, func(w *world) {
		_, b := w.rolling(func(c *Config) { c.MinReady = time.Minute })
		b.connect("s3")
		w.within(time.Second, "the new child runs", func() bool { return b.running("s3") })
		w.pass(turn.Proof + 20*time.Second)
		require.Equal(t, "True Holding", b.ready())
		b.kill()
		b = w.start("b", func(c *Config) { c.API = &lateAnswers{c.API.(*link)} })
		b.gates.connect(b.gates.shim("s3").report)
		w.pass(time.Second) // the agent resumes the hold
		require.Equal(t, "True Holding", b.ready())
		w.pass(time.Minute)
		assert.Equal(t, []string{"False", "True"}, b.readiness(), "Ready throughout")
		assert.Equal(t, newRevision, w.rollout().Proven, "the time before the restart counts")
	})
}

func TestTurnLastsForTheControllersMinReadySeconds(t *testing.T) {
	const minReady = 30 * time.Second
	simulate(t, func(w *world) {
		a, b := w.rolling(func(c *Config) { c.MinReady = minReady })
		b.connect("s3")
		w.within(time.Second, "the new child runs", func() bool { return b.running("s3") })
		w.pass(turn.Proof + time.Second)
		assert.Equal(t, "True Holding", b.ready(), "the controller counts from here")
		assert.Equal(t, oldRevision, w.rollout().Proven)
		b.gates.end("s3")
		w.within(200*time.Millisecond, "the old child runs again", func() bool { return a.running("s1") })
		b.gates.report("s3", func(r *gate.Report) { r.Dead = true })
		b.connect("s4")
		w.within(2*time.Minute, "the second turn", func() bool { return b.running("s4") })
		w.pass(turn.Proof + minReady + time.Second)
		assert.Equal(t, newRevision, w.rollout().Proven)
	})
}

// The controller's minReadySeconds are a minute. The application serves for 45 s, and then
// stops serving for 20 s or more.
func TestTurnContinuesIfTheApplicationBrieflyStopsServing(t *testing.T) {
	for name, recovers := range map[string]bool{"serves again": true, "does not yet": false} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				_, b := w.rolling(func(c *Config) { c.MinReady = time.Minute })
				b.connect("s3")
				w.within(time.Second, "the new child runs", func() bool { return b.running("s3") })
				w.pass(45 * time.Second)
				b.gates.report("s3", func(r *gate.Report) { r.Starting = true })
				w.pass(20 * time.Second)
				if recovers {
					b.gates.report("s3", func(r *gate.Report) { r.Starting = false })
				}
				w.pass(30 * time.Second)
				assert.True(t, b.running("s3"), "%q", b.gates.told())
			})
		})
	}
}

func TestRevisionsTakeNoTurnsWithoutANextLease(t *testing.T) {
	c := Config{Pod: Pod{PodName: "b", PodUID: "u", Revision: newRevision}, Claims: Claims{Readiness: api.ReadinessForward}}
	for slot, ordered := range map[string]bool{
		theSlot: true, "lock.nightly": true, "singleton.job.nightly": false, "semaphore.pool.0": false,
	} {
		c.Slots = []string{slot}
		assert.Equal(t, ordered, newRollout(c).takesTurns(), slot)
	}
}

func TestTurnEndsIfTheApplicationNeverServes(t *testing.T) {
	simulate(t, func(w *world) {
		a, b := w.rolling()
		b.gates.slow = true
		b.connect("s3")
		w.within(time.Second, "the turn begins", func() bool { return w.holder() == b.identity() })
		w.pass(59 * time.Second)
		assert.Equal(t, b.identity(), w.holder())
		assert.Equal(t, []string{"True"}, w.pods["a2"].readiness(), "while nobody serves, too")
		w.pass(2 * time.Second)
		assert.Equal(t, []string{show.ReasonTurnFailed}, b.gates.told())
		b.gates.report("s3", func(r *gate.Report) { r.Phase, r.Hold = gate.Waiting, b.gates.grants[0].Hold })
		w.within(3*time.Second, "the old child runs again", func() bool { return a.running("s1") })
		assert.Equal(t, []string{"False"}, b.readiness())
		assert.Equal(t, []string{"True"}, w.pods["a2"].readiness(), "while the old application starts, too")
	})
}

func TestHolderWithoutRevisionIsNeverAskedToYield(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot, nextLease)
		a := w.start("a")
		a.connect("s1")
		w.pass(2 * time.Minute)
		b := w.start("b", of(newRevision))
		b.connect("s2")
		w.pass(5 * time.Minute)
		assert.Equal(t, "True StandingBy", b.ready())
		assert.True(t, a.running("s1"))
		assert.Empty(t, w.server.lease(nextLease).Holder)
	})
}

func TestPodNeverAsksIfReadinessAnnotationSaysHolder(t *testing.T) {
	simulate(t, func(w *world) {
		a, b := w.rolling(func(c *Config) { c.Readiness = api.ReadinessHolder })
		b.connect("s3")
		w.pass(5 * time.Minute)
		assert.Equal(t, "False StandingBy", b.ready())
		assert.True(t, a.running("s1"))
	})
}

func TestDeletedHolderNamesTheAskerAsSuccessor(t *testing.T) {
	simulate(t, func(w *world) {
		a, b := w.rolling()
		a.gates.shims["s1"].stuck = true
		b.connect("s3")
		w.pass(time.Second)
		close(a.stop)
		w.pass(time.Second)
		a.gates.report("s1", func(r *gate.Report) { r.Phase = gate.Ended })
		w.within(100*time.Millisecond, "the turn begins", func() bool { return w.holder() == b.identity() })
		assert.Equal(t, a.identity(), w.rollout().Yielder)
	})
}

func TestPodStatusExplainsWhyThePodCannotAsk(t *testing.T) {
	simulate(t, func(w *world) {
		a, b := w.rolling()
		w.server.remove(nextLease)
		b.connect("s3")
		w.pass(30 * time.Second)
		assert.Equal(t, "False AsksForItsTurn", b.ready())
		assert.Contains(t, b.message(), "but cannot write that: ")
		w.free(nextLease)
		w.within(2*time.Minute, "the turn begins", func() bool { return b.running("s3") })
		assert.False(t, a.running("s1"))
	})
}

func TestHolderIgnoresAskInAnUnchangedNextLease(t *testing.T) {
	var seen asks
	l := &kube.Lease{ResourceVersion: "5", Holder: "b_u", Annotations: map[string]string{api.RevisionAnnotation: newRevision.String()}}
	seen.see(time.Second, l, "1")
	assert.Zero(t, seen.last)
	seen.see(2*time.Second, l, "1")
	assert.Zero(t, seen.last, "a read of the same version")
	l.ResourceVersion, l.RenewTime = "6", time.Now()
	seen.see(3*time.Second, l, "1")
	assert.Equal(t, turn.Ask{Identity: "b_u", Revision: newRevision, Seen: 3 * time.Second}, seen.last)
	l.ResourceVersion, l.Annotations = "7", nil
	seen.see(4*time.Second, l, "1")
	assert.Zero(t, seen.last, "an ask without a revision")
}
