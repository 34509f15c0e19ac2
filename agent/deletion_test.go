// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/ends"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// delete makes each later answer of the API server report that the pod is being deleted.
func (p *pod) delete() {
	p.link.set(func(l *link) { l.deleted, l.graceEnds = true, time.Now().Add(cmp.Or(p.config.Grace, api.DefaultGrace)) })
}

// podReads returns the number of the agent's checks for its pod's deletion.
func (p *pod) podReads() (count int) {
	p.link.set(func(l *link) { count = l.podReads })
	return count
}

// A person names the successor when the person requests the yield. So the successor can check for
// its deletion while the holder's application stops.
func TestNamedSuccessorChecksPodDeletionBeforeTheRelease(t *testing.T) {
	for name, test := range map[string]struct {
		stop, delay time.Duration
		checks      int
	}{
		"the check is fresh":                      {stop: 3 * time.Second, checks: 1},
		"the application stops slowly":            {stop: clearFor + time.Second, checks: 2},
		"the check is answered after the release": {stop: time.Second, delay: 1500 * time.Millisecond, checks: 2},
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			w.free(theSlot)
			a, b := w.pair()
			a.gates.shims["s1"].stop = test.stop
			before := b.podReads()
			b.link.set(func(l *link) { l.delay = test.delay })
			y := api.Yield{Hold: a.gates.hold("s1"), Successor: b.identity()}
			w.annotate(theSlot, api.YieldAnnotation, y.String())
			w.pass(test.stop / 2)
			assert.Equal(t, before+1, b.podReads(), "the holder's application has not ended")
			b.link.set(func(l *link) { l.delay = 0 })
			w.within(10*time.Second, "child runs", func() bool { return b.running("s2") })
			assert.Equal(t, before+test.checks, b.podReads())
		}))
	}
}

// During a yield the successor checks whether its pod is being deleted. If the deletion comes
// after this check, but before the holder's release, the successor may start its application.
// Then the answer to the successor's first status write reports the deletion, and the successor
// gives the hold back.
func TestSuccessorDeletedDuringYieldReleasesTheSlot(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a, b := w.pair()
		a.gates.shims["s1"].stop = 2 * time.Second
		y := api.Yield{Hold: a.gates.hold("s1"), Successor: b.identity()}
		w.annotate(theSlot, api.YieldAnnotation, y.String())
		w.pass(time.Second)
		b.delete()
		w.within(10*time.Second, "the slot is given back", func() bool { return w.holder() == a.identity() })
		for _, ran := range b.gates.shim("s2").ran {
			assert.Less(t, ran[1]-ran[0], time.Second)
		}
	})
}

func TestNamedSuccessorThatIsDeletedNeverAcquires(t *testing.T) {
	for range 10 { // a status write at the right instant would also report the deletion
		simulate(t, func(w *world) {
			w.free(theSlot)
			a, b := w.pair()
			a.gates.shims["s1"].stop = 2 * time.Second
			b.delete()
			y := api.Yield{Hold: a.gates.hold("s1"), Successor: b.identity()}
			w.annotate(theSlot, api.YieldAnnotation, y.String())
			w.within(time.Minute, "the old holder takes the slot again", func() bool { return len(a.gates.shim("s1").ran) == 2 })
			assert.Empty(t, b.gates.shim("s2").ran)
		})
	}
}

// The API server stores the acquiring write at once. In each case the API server answers the check
// for the pod's deletion in a different way.
func TestAgentBrieflyDelaysGrantToCheckPodDeletion(t *testing.T) {
	for name, test := range map[string]struct {
		slow func(l *link)
		want time.Duration
	}{
		"answered at once":  {func(*link) {}, 0},
		"answered later":    {func(l *link) { l.delay = 300 * time.Millisecond }, 300 * time.Millisecond},
		"refused":           {func(l *link) { l.noStatus = true }, 0},
		"not answered ever": {func(l *link) { l.delay = time.Hour }, time.Second},
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			w.free(theSlot)
			a := w.start("a")
			w.pass(10 * time.Second)
			a.link.set(test.slow)
			a.connect("s1")
			took := w.within(2*time.Second, "child runs", func() bool { return a.running("s1") })
			assert.InDelta(t, test.want.Seconds(), took.Seconds(), 0.05)
			w.pass(time.Minute)
			assert.Len(t, a.gates.shim("s1").ran, 1, "the hold goes on")
		}))
	}
}

// If the kubelet's SIGTERM comes before the shim has a signal handler, the signal is lost. The
// shim then goes on waiting in a deleted pod, and may get a grant. So the agent drains the hold
// once the agent learns of the deletion.
func TestAgentDrainsHoldAcquiredAfterThePodsDeletion(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		b := w.start("b")
		b.connect("s2")
		w.within(time.Second, "child runs", func() bool { return b.running("s2") })
		a := w.start("a")
		a.connect("s1").stop = 25 * time.Second
		w.pass(time.Second)
		a.delete()
		a.link.set(func(l *link) { l.delay = 2 * time.Second }) // the check for the deletion takes longer than the agent delays the grant
		b.gates.end("s2")
		w.within(2*time.Second, "nobody can know yet", func() bool { return a.running("s1") })
		w.within(10*time.Second, "it is known", func() bool { return a.gates.phase("s1") == gate.Draining })
		assert.Equal(t, []string{ends.PodDeleted.Reason + " 30s"}, a.gates.told(), "the container ends, with the child's own exit code")
		w.pass(20 * time.Second)
		assert.Equal(t, gate.Draining, a.gates.phase("s1"), "the whole grace, as if the kubelet had asked")
		w.within(6*time.Second, "released", func() bool { return w.holder() == "" })
		w.pass(time.Minute)
		assert.Empty(t, w.holder(), "it never competes again")
		assert.Len(t, a.gates.shim("s1").ran, 1)
		assert.Equal(t, gate.Ended, a.gates.phase("s1"))
	})
}

// With the gate "pod" only a restart of all containers ends the application. In a
// deleted pod the kubelet restarts nothing, so a drain would not end the application.
func TestDeletedPodWithPodGateKeepsTheSlot(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.start("a", func(c *Config) { c.KubeletStops = true })
		w.pass(time.Second)
		a.delete()
		a.link.set(func(l *link) { l.delay = 2 * time.Second }) // the check for the deletion takes longer than the agent delays the grant
		a.connect("s1")
		w.pass(time.Minute)
		require.True(t, a.agent.state.deletion.known)
		a.agent.Yield()
		w.pass(time.Minute)
		assert.True(t, a.running("s1"))
		assert.Equal(t, a.identity(), w.holder())
	})
}

// In a hard eviction the grace is one second. But the kubelet gives each container at least two
// seconds after its stop signal. So the kubelet kills the application after two seconds. The
// kubelet signals the agent after one second, and kills the agent after three.
func TestPodWithGraceOfOneSecondReleasesSlot(t *testing.T) {
	for name, c := range map[string]struct {
		// stops reports that the child stops at the kubelet's SIGTERM. If stops is false, the
		// kubelet kills the child.
		stops bool
		// evicted reports that the kubelet ends a pod that nobody has deleted.
		evicted bool
		// away is the time for which the API server refuses each request. The outage begins just
		// before the child's end.
		away time.Duration
	}{
		"the child stops":                    {stops: true},
		"the child is killed":                {},
		"the kubelet evicts the pod":         {evicted: true},
		"the API server is away for a while": {away: 400 * time.Millisecond},
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			w.free(theSlot)
			a, b := w.start("a"), w.start("b")
			a.connect("s1")
			w.within(time.Second, "the child runs", func() bool { return a.running("s1") })
			b.connect("s2")
			w.pass(time.Minute)
			if !c.evicted {
				a.delete()
			}
			if !c.stops {
				w.pass(time.Second)
				close(a.stop)
				w.pass(time.Second)
				require.True(t, a.running("s1"), "the kubelet has not killed it yet")
			}
			if c.away > 0 {
				a.link.set(func(l *link) { l.refuse = &kube.StatusError{Code: 503} })
				time.AfterFunc(c.away, func() { a.link.set(func(l *link) { l.refuse = nil }) })
			}
			if c.stops {
				a.gates.end("s1")
			}
			a.gates.report("s1", func(r *gate.Report) { r.Connected, r.Dead = false, true })
			w.within(c.away+500*time.Millisecond, "the next child runs", func() bool { return b.running("s2") })
			if c.stops {
				close(a.stop)
			}
			a.endsWithin(500 * time.Millisecond)
			assert.Equal(t, b.identity(), w.holder())
			if !c.stops {
				close(a.gates.shims["s1"].ended)
			}
		}))
	}
}

// goneAPI answers for a pod that the API server does not have any more.
type goneAPI struct {
	*link
	answer atomic.Pointer[kube.StatusError]
}

func (g *goneAPI) ReadDeletion(ctx context.Context, pod string) (kube.Pod, error) {
	if err := g.answer.Load(); err != nil {
		return kube.Pod{}, err
	}
	return g.link.ReadDeletion(ctx, pod)
}

func TestForceDeletedPodNeverAcquiresASlot(t *testing.T) {
	for name, c := range map[string]struct {
		answer kube.StatusError
		starts bool
	}{
		"the API server has no such pod": {kube.StatusError{Code: 404, Reason: "NotFound"}, false},
		"a proxy answers":                {kube.StatusError{Code: 404}, true},
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			w.free(theSlot)
			var g *goneAPI
			a := w.start("a", func(cf *Config) { g = &goneAPI{link: cf.API.(*link)}; cf.API = g })
			w.pass(10 * time.Second)
			g.answer.Store(&c.answer)
			a.connect("s1")
			w.pass(10 * time.Second)
			assert.Equal(t, c.starts, len(a.gates.given()) > 0)
			assert.Equal(t, c.starts, w.holder() != "", "another pod may hold")
		}))
	}
}

// A person may name the same pod for several slots whose holders do not yield.
func TestExpectedHoldsCauseASingleCheckEach(t *testing.T) {
	d, checks := deletion{}, 0
	for now := time.Second; now < 10*time.Minute; now += 100 * time.Millisecond {
		for slot, hold := range map[string]string{"a": "first", "b": "second"} {
			if d.expect(slot, hold, now) {
				checks++
			}
		}
	}
	assert.Equal(t, 2, checks)
}

func TestExpectationOfNextHoldVoidsEarlierCheck(t *testing.T) {
	d := deletion{}
	require.True(t, d.expect("a", "first", time.Second))
	d.cleared = true
	require.True(t, d.expect("a", "second", time.Minute))
	assert.False(t, d.clearedAhead(time.Minute))
}

// disruptions returns the stored patches with the condition DisruptionTarget.
func (p *pod) disruptions() (found []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, patch := range p.patches {
		if strings.Contains(patch, api.DisruptionCondition) {
			found = append(found, patch)
		}
	}
	return found
}

// The Job's controller must not take the end of the pod for a failure of the application.
func TestPodThatEndsWithItsHoldIsMarkedAsDisrupted(t *testing.T) {
	ends := func(c *Config) { c.Ends = true }
	yields := func(w *world, p *pod) { p.agent.Yield() }
	stops := func(w *world, p *pod) { w.annotate(theSlot, api.PausedAnnotation, string(api.PauseStop)) }
	loses := func(w *world, p *pod) { w.edit(func(l *kube.Lease) { l.Holder = "b_u" }) }
	for name, c := range map[string]struct {
		change func(*Config)
		end    func(*world, *pod)
		reason string
	}{
		"yield": {ends, yields, "Yielded"}, "pause": {ends, stops, "Paused"}, "loss": {ends, loses, "Lost"},
		"end of the application":   {ends, func(_ *world, p *pod) { p.gates.end("s1") }, ""},
		"yield of a pod that goes": {func(*Config) {}, yields, ""},
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			w.free(theSlot)
			p := w.start("a", c.change)
			p.connect("s1")
			w.within(time.Minute, "runs", func() bool { return p.running("s1") })
			c.end(w, p)
			w.pass(10 * time.Second)
			found := p.disruptions()
			if c.reason == "" {
				assert.Empty(t, found)
				return
			}
			require.Len(t, found, 1)
			assert.Contains(t, found[0], `"reason":"`+c.reason+`"`)
		}))
	}
}

// The kubelet reports the pod as failed only after the end of the agent.
func TestStoppingAgentFirstStoresTheDisruption(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		p := w.start("a", func(c *Config) { c.Ends = true })
		p.connect("s1")
		w.within(time.Minute, "runs", func() bool { return p.running("s1") })
		p.set(func(l *link) { l.delay = time.Second })
		p.agent.Yield()
		w.within(time.Minute, "stops", func() bool { return !p.running("s1") })
		p.gates.end("s1")
		close(p.stop)
		w.within(20*time.Second, "ends", func() bool {
			select {
			case err := <-p.done:
				require.NoError(t, err)
				return true
			default:
				return false
			}
		})
		assert.Len(t, p.disruptions(), 1)
	})
}
