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

	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/agent/ends"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/agent/leave"
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
	w.pass(api.TurnRest + time.Second)
	b = w.start("b", append([]func(c *Config){of(newRevision)}, change...)...)
	return a, b
}

// The old application has served for seconds only, but it has not stopped for another pod before.
func TestFirstRolloutNeedNotWaitUntilTheHolderHasServedForLong(t *testing.T) {
	for name, crashes := range map[string]bool{"of a new workload": false, "of a workload that crashes": true} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			a := w.first(of(oldRevision))
			w.up("a2", of(oldRevision))
			w.pass(time.Second)
			if crashes {
				a.gates.fail("a")
				w.within(2*time.Second, "the other old pod runs", w.pods["a2"].runs)
			}
			b := w.up("b", of(newRevision))
			w.within(3*time.Second, "the new pod runs", b.runs)
			w.within(api.TurnProof+2*time.Second, "it is Ready", func() bool { return strings.HasPrefix(b.ready(), "True") })
			assert.Empty(t, w.rollout().Yielder, "the turn is over")

			c := w.up("c", of(api.Revision{Workload: newRevision.Workload, Number: newRevision.Number + 1, Hash: "newest"}))
			w.pass(api.TurnRest - api.TurnProof - 5*time.Second)
			assert.True(t, b.runs(), "another rollout waits, because the application has just stopped for one")
			w.within(15*time.Second, "the newest pod runs", c.runs)
		}))
	}
}

// A workload was deleted, and made again with the same name. Its slot's Lease is the same.
func TestNewWorkloadKeepsNothingOfItsNamesake(t *testing.T) {
	for slot, keeps := range map[string]bool{theSlot: false, "lock.db": true} {
		t.Run(slot, simulated(func(t *testing.T, w *world) {
			w.free(slot, api.NextLease(slot))
			record := api.Rollout{Yielder: "z_u", From: oldRevision, Proven: oldRevision, Hangs: 3, Hung: "z_u", Moved: api.Moved{From: "z_u", Why: ends.Ended.Reason}}
			w.annotate(slot, api.RolloutAnnotation, record.String())
			a := w.up("a", of(api.Revision{Workload: "9999", Number: 1, Hash: "n"}), func(c *Config) { c.Slots = []string{slot} })
			w.within(time.Second, "the pod runs", a.runs)
			got := api.ParseRollout(w.server.lease(slot).Annotations[api.RolloutAnnotation])
			assert.NotEmpty(t, got.Hold)
			assert.Equal(t, keeps, got.Moved.From != "")
			assert.Equal(t, keeps, got.Hung != "")
			assert.Equal(t, keeps, got.Hangs != 0)
		}))
	}
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

func (w *world) rollout() api.Rollout {
	l := w.server.lease(theSlot)
	return api.ParseRollout(l.Annotations[api.RolloutAnnotation])
}

func TestPodOfNewRevisionIsReadyOnceProven(t *testing.T) {
	if testing.Short() {
		t.Skip("slow with the race detector")
	}
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
		w.pass(api.TurnProof - 2*time.Second)
		assert.Equal(t, "True StandingBy", a.ready())
		assert.Equal(t, "False InItsTurn", b.ready())
		w.within(2*time.Second, "the new pod is Ready", func() bool { return b.ready() == "True Holding" })
		assert.Equal(t, newRevision, w.rollout().Proven)

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

func TestHolderHearsWordsWithoutWatches(t *testing.T) {
	for name, broken := range map[string]func(l *link){
		"refused": func(l *link) { l.unwatched = &kube.StatusError{Code: 429} },
		"empty":   func(l *link) { l.mute, l.idle, l.orderly = true, 1, true },
		"silent":  func(l *link) { l.mute = l.name == "a" },
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			_, b := w.rolling()
			for _, p := range w.pods {
				p.set(func(l *link) { broken(l); l.refuse = &kube.StatusError{Code: 429} })
				p.set(func(l *link) { l.refuse = nil }) // the open watches have ended
			}
			b.connect("s3")
			w.within(longestWatch+leave.Another, "the turn begins", func() bool { return b.running("s3") })
		}))
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
			t.Run(fmt.Sprintf("%s, hangs %v", name, hangs), simulated(func(t *testing.T, w *world) {
				w.free(theSlot, nextLease)
				app := newPatient()
				a := w.start("a", of(oldRevision), app.probed("readiness"), func(c *Config) { c.ReplacesUnready = tt.replaces })
				a.connect("s1").stop = 3 * time.Second
				w.pass(api.TurnRest + time.Second)
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
			}))
		}
	}
}

func TestRevisionsTakeNoTurnsWithoutANextLease(t *testing.T) {
	c := Config{Pod: Pod{PodName: "b", PodUID: "u", Revision: newRevision}, Claims: Claims{Settings: api.Settings{Readiness: api.ReadinessForward}}}
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
		assert.Equal(t, []string{ends.TurnFailed.Reason}, b.gates.told())
		b.gates.report("s3", func(r *gate.Report) { r.Phase, r.Hold = gate.Waiting, b.gates.grants[0].Hold })
		w.within(3*time.Second, "the old child runs again", func() bool { return a.running("s1") })
		assert.Equal(t, []string{"False"}, b.readiness())
		assert.Equal(t, []string{"True"}, w.pods["a2"].readiness(), "while the old application starts, too")
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

// unordered is the revision of a pod whose agent or webhook is of a version of Metaparticle without
// turns.
var unordered = api.Revision{}

// up starts a pod with one shim, whose id is the pod's name.
func (w *world) up(name string, change ...func(c *Config)) *pod {
	p := w.start(name, change...)
	p.connect(gate.ShimID(name))
	return p
}

// first starts the first pod of a slot, and waits until that pod runs the application.
func (w *world) first(change ...func(c *Config)) *pod {
	w.free(theSlot, nextLease)
	a := w.up("a", change...)
	w.within(time.Second, "the child runs", a.runs)
	return a
}

// runs reports whether the pod runs the application.
func (p *pod) runs() bool {
	phase := p.gates.phase(gate.ShimID(p.config.PodName))
	return phase == gate.Running || phase == gate.Draining
}

// remove deletes the pod, and stops its containers as the kubelet does.
func (p *pod) remove() {
	p.delete()
	close(p.stop)
	if p.runs() {
		p.gates.end(gate.ShimID(p.config.PodName))
	}
	p.endsWithin(time.Second)
}

// starts returns the number of the application's starts in all pods.
func (w *world) starts() (count int) {
	for _, p := range w.pods {
		for id := range p.gates.shims {
			count += len(p.gates.shim(id).ran)
		}
	}
	return count
}

// replace rolls out as a Deployment's controller does, and returns the new pods. The function
// makes one new pod at a time, and deletes one old pod once that new pod is Ready.
func (w *world) replace(olds []*pod, news []api.Revision) (pods []*pod) {
	w.t.Helper()
	for i, revision := range news {
		b := w.up(fmt.Sprintf("b%d", i+1), of(revision))
		pods = append(pods, b)
		w.within(2*api.TurnRest, b.config.PodName+" is Ready", func() bool { return strings.HasPrefix(b.ready(), "True") })
		olds[i].remove()
		w.pass(time.Second)
	}
	return pods
}

// A pod has no revision if its agent or its webhook is of an earlier version of Metaparticle, or if
// the webhook was rolled back. With such pods a rollout still completes, and so does the next
// rollout. With n old pods, the application starts at most n+1 times until the first rollout is
// complete.
func TestRolloutsCompleteDespitePodsWithoutARevision(t *testing.T) {
	if testing.Short() {
		t.Skip("slow with the race detector")
	}
	for name, c := range map[string]struct{ olds, news []api.Revision }{
		"no old pod has one":            {[]api.Revision{unordered, unordered, unordered}, []api.Revision{newRevision, newRevision, newRevision}},
		"no new pod has one":            {[]api.Revision{oldRevision, oldRevision, oldRevision}, []api.Revision{unordered, unordered, unordered}},
		"the first old pod has none":    {[]api.Revision{unordered, oldRevision, oldRevision}, []api.Revision{newRevision, newRevision, newRevision}},
		"the later old pods have none":  {[]api.Revision{oldRevision, unordered, unordered}, []api.Revision{newRevision, newRevision, newRevision}},
		"the first new pod has none":    {[]api.Revision{oldRevision, oldRevision, oldRevision}, []api.Revision{unordered, newRevision, newRevision}},
		"the second new pod has none":   {[]api.Revision{oldRevision, oldRevision, oldRevision}, []api.Revision{newRevision, unordered, newRevision}},
		"every second pod has none":     {[]api.Revision{oldRevision, unordered, oldRevision}, []api.Revision{unordered, newRevision, unordered}},
		"all have one":                  {[]api.Revision{oldRevision, oldRevision, oldRevision}, []api.Revision{newRevision, newRevision, newRevision}},
		"no pod has one":                {[]api.Revision{unordered, unordered, unordered}, []api.Revision{unordered, unordered, unordered}},
		"one replica, the old has none": {[]api.Revision{unordered}, []api.Revision{newRevision}},
		"one replica, the new has none": {[]api.Revision{oldRevision}, []api.Revision{unordered}},
	} {
		for order, sorted := range map[string]bool{"holder first": true, "holder last": false} {
			t.Run(name+", "+order, simulated(func(t *testing.T, w *world) {
				w.free(theSlot, nextLease)
				var olds []*pod
				for i, revision := range c.olds {
					olds = append(olds, w.up(fmt.Sprintf("a%d", i+1), of(revision)))
					w.pass(time.Second)
				}
				require.True(t, olds[0].runs())
				w.pass(api.TurnRest)
				if !sorted {
					slices.Reverse(olds)
				}
				news := w.replace(olds, c.news)
				w.within(2*turn.LastResort, "a new pod runs", func() bool {
					return slices.ContainsFunc(news, (*pod).runs)
				})
				w.pass(2 * api.TurnRest)
				for _, b := range news {
					assert.True(t, strings.HasPrefix(b.ready(), "True"), "%s: %s %s", b.config.PodName, b.ready(), b.message())
				}
				assert.LessOrEqual(t, w.starts(), len(c.olds)+1, "each deletion of a holder, and a turn")

				next := w.up("c", of(api.Revision{Workload: newRevision.Workload, Number: 8, Hash: "next"}))
				w.within(2*api.TurnRest, "the next rollout goes on", func() bool { return strings.HasPrefix(next.ready(), "True") })
			}))
		}
	}
}

func TestPausedSlotDelaysRolloutUntilThePauseEnds(t *testing.T) {
	simulate(t, func(w *world) {
		a, b := w.rolling()
		w.annotate(theSlot, api.PausedAnnotation, string(api.PauseHold))
		w.pass(10 * time.Second)
		b.connect("s3")
		w.pass(5 * time.Minute)
		assert.True(t, a.running("s1"))
		assert.Equal(t, "False WaitsForItsTurn", b.ready())
		assert.Contains(t, b.message(), "which is paused")
		w.annotate(theSlot, api.PausedAnnotation, "")
		w.within(20*time.Second, "the turn begins", func() bool { return b.running("s3") })
	})
}

// fails ends the shim's child, so that the turn fails. Then the shim of the restarted container
// connects, with the id in the argument "next".
func (p *pod) fails(shim, next gate.ShimID) {
	p.gates.end(shim)
	p.world.within(time.Second, "the turn is over", func() bool { return p.world.holder() != p.identity() })
	p.gates.report(shim, func(r *gate.Report) { r.Dead = true })
	p.connect(next)
}

// proven starts two old pods, and lets the first one serve for longer than [api.TurnRest]. By then the
// revision of both pods is proven.
func (w *world) proven() (a, a2 *pod) {
	a = w.first(of(oldRevision))
	a2 = w.up("a2", of(oldRevision))
	w.pass(api.TurnRest + time.Second)
	return a, a2
}

// Two Deployments share a lock. The revision of one Deployment is broken, and a pod of the
// other Deployment stands by.
func TestBrokenWorkloadLosesItsLockToAnotherWorkload(t *testing.T) {
	another := func(c *Config) {
		c.Workload, c.Revision = "Deployment/other", api.Revision{Workload: "2d7a", Number: 3, Hash: "other"}
	}
	t.Run("its only pod ends", func(t *testing.T) {
		simulate(t, func(w *world) {
			b := w.first(of(newRevision))
			other := w.up("o", another)
			w.pass(time.Second)
			b.fails("a", "b2")
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

// After a rollback to version 0.1.0 the Lease keeps the rollout of the newer agents. During the
// rollback a pod of another revision holds the slot, so the revision in the Lease is outdated. After
// the second upgrade no pod waits for pods of that revision.
func TestRolloutFromBeforeARollbackIsForgotten(t *testing.T) {
	simulate(t, func(w *world) {
		a := w.first(of(oldRevision))
		w.pass(api.TurnRest)
		require.Equal(t, oldRevision, w.rollout().Proven)
		a.remove()
		o := w.up("o", of(unordered))
		w.within(time.Second, "the older agent holds", o.runs)
		require.Equal(t, oldRevision, w.rollout().Proven, "the older agent keeps the text")
		b1, b2 := w.up("b1", of(newRevision)), w.up("b2", of(newRevision))
		w.pass(time.Second)
		o.remove()
		w.within(api.TurnProof/2, "the new revision runs", func() bool { return b1.runs() || b2.runs() })
		for _, b := range []*pod{b1, b2} {
			w.within(time.Second, b.config.PodName+" is Ready", func() bool { return strings.HasPrefix(b.ready(), "True") })
		}
	})
}

// A person applies an old manifest of the Lease, or edits the number of transitions. A pod of a new
// revision must still wait for its turn.
func TestRolloutSurvivesChangedNumberOfTransitions(t *testing.T) {
	simulate(t, func(w *world) {
		a, b := w.rolling()
		edited := w.server.lease(theSlot)
		edited.Transitions = 0
		w.server.put(&edited)
		w.pass(10 * time.Second)
		assert.Equal(t, "False WaitsForItsTurn", b.ready(), "its container has not started")
		b.connect("s3")
		w.within(time.Second, "the turn begins", func() bool { return b.running("s3") })
		b.gates.end("s3")
		w.within(time.Second, "the old child runs again", func() bool { return a.running("s1") })
		assert.Equal(t, 1, w.rollout().Turns[0].Count)
	})
}

func TestPodWithoutTurnsEndsRolloutOfItsWorkload(t *testing.T) {
	text := api.Rollout{Transitions: 5, Proven: oldRevision}.String()
	for name, c := range map[string]struct {
		workload    string
		transitions int
		want        api.Rollout
	}{
		"its own workload":          {oldRevision.Workload, 5, api.Rollout{}},
		"another workload":          {"other", 5, api.Rollout{Transitions: 6, Proven: oldRevision}},
		"an outdated text":          {"other", 6, api.Rollout{}},
		"an unknown workload":       {"", 5, api.Rollout{Transitions: 5, Proven: oldRevision}},
		"its own, already outdated": {oldRevision.Workload, 7, api.Rollout{}},
	} {
		t.Run(name, func(t *testing.T) {
			config := Config{}
			config.Readiness, config.Slots = api.ReadinessHolder, []string{theSlot}
			config.Revision = api.Revision{Workload: c.workload, Number: 7, Hash: "new"}
			last := lease.Record{UID: "u", Transitions: c.transitions, Rollout: text}
			got := newRollout(config).text(0, time.Now(), elector.Action{Kind: elector.Acquire, Record: lease.Record{Hold: "hold"}}, last)
			assert.Equal(t, c.want, api.ParseRollout(got))
		})
	}
}

// An agent of an earlier version of Metaparticle ignores the successor in a release. So such an
// agent may take the slot before the successor does.
func TestRolloutContinuesOnceTheOutdatedAgentIsGone(t *testing.T) {
	simulate(t, func(w *world) {
		a := w.first(of(oldRevision))
		w.pass(api.TurnRest + 2*time.Second)
		b := w.up("b", of(newRevision))
		w.within(time.Second, "the turn begins", b.runs)
		b.gates.end("b")
		w.within(time.Second, "the turn is over", func() bool { return w.holder() != b.identity() })
		a.remove()
		o := w.up("o", of(unordered))
		w.within(time.Second, "the older agent holds", o.runs)
		require.NotEmpty(t, w.rollout().Turns, "the older agent leaves the text")
		b.gates.report("b", func(r *gate.Report) { r.Dead = true })
		b.connect("b2")
		w.pass(2 * time.Second)
		assert.Equal(t, "True StandingBy", b.ready(), "the pods take no turns")
		o.remove()
		w.within(2*turn.LastResort, "the new pod runs", func() bool { return b.running("b2") })
		w.within(2*api.TurnProof, "the new pod is Ready", func() bool { return b.ready() == "True Holding" })
	})
}
