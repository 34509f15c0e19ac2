// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/api"
)

// annotate writes an annotation on a Lease as a person does; an empty value removes it.
func (w *world) annotate(name, key, value string) {
	l := w.server.lease(name)
	l.Annotations = maps.Clone(l.Annotations)
	if l.Annotations == nil {
		l.Annotations = map[string]string{}
	}
	l.Annotations[key] = value
	if value == "" {
		delete(l.Annotations, key)
	}
	w.server.put(&l)
}

// event returns the messages of the pod's Events with the given reason.
func (w *world) event(pod, reason string) (messages []string) {
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	for _, e := range w.server.events {
		if e.PodName == pod && e.Reason == reason {
			messages = append(messages, e.Message)
		}
	}
	return messages
}

func (p *pod) message() string {
	if l := p.looks(); len(l.Status.Conditions) > 0 {
		return l.Status.Conditions[0].Message
	}
	return ""
}

func TestHolderOfAPausedSlotKeepsRunning(t *testing.T) {
	for _, value := range []string{"hold", "on"} {
		t.Run(value, simulated(func(t *testing.T, w *world) {
			w.free(theSlot)
			a, b := w.pair()
			w.annotate(theSlot, api.PausedAnnotation, value)
			w.pass(5 * time.Minute)
			require.True(t, a.running("s1"))
			assert.Empty(t, a.gates.told())
			assert.Equal(t, value, w.server.lease(theSlot).Annotations[api.PausedAnnotation], "renewals keep it")
			assert.Equal(t, "True Holding", a.ready())
			for _, p := range []*pod{a, b} {
				assert.Contains(t, p.message(), "the slot "+theSlot+" is paused by hand")
				assert.Equal(t, value == "on", strings.Contains(p.message(), `"on" is neither hold nor stop`), p.message())
			}
			require.Len(t, w.event("a", "Paused"), 1)
			assert.Contains(t, w.event("a", "Paused")[0], "this pod goes on")

			// No pod begins a new hold while the slot is paused.
			a.gates.end("s1")
			w.within(time.Second, "released", func() bool { return w.holder() == "" })
			w.pass(time.Hour)
			assert.Empty(t, w.holder())
			assert.Equal(t, "False Paused", b.ready())

			w.annotate(theSlot, api.PausedAnnotation, "")
			w.within(100*time.Millisecond, "resumed", func() bool { return a.running("s1") || b.running("s2") })
		}))
	}
}

func TestPauseWithValueStopMakesTheHolderDrain(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		p := &ports{}
		a, b := w.pair(func(c *Config) {
			if c.PodName == "b" {
				forwarding(p)(c)
			}
		})
		w.within(time.Second, "forwarding", func() bool { open, _ := p.state(); return open })
		a.gates.mu.Lock()
		a.gates.shims["s1"].stop = 25 * time.Second
		a.gates.mu.Unlock()
		w.annotate(theSlot, api.PausedAnnotation, string(api.PauseStop))
		w.within(100*time.Millisecond, "draining", func() bool { return a.gates.phase("s1") == gate.Draining })
		w.pass(24 * time.Second)
		assert.Equal(t, gate.Draining, a.gates.phase("s1"), "the pod's whole grace")
		w.within(2*time.Second, "released", func() bool { return w.holder() == "" })
		before := w.server.requests()
		w.pass(time.Hour)
		assert.Less(t, w.server.requests()-before, 60, "two standbys look every five minutes, in case their watches are mute")
		assert.Empty(t, w.holder())
		for _, pod := range []*pod{a, b} {
			assert.Equal(t, "False Paused", pod.ready())
			assert.Equal(t, "nobody holds "+theSlot+"; the slot "+theSlot+" is paused by hand", pod.message())
		}
		open, _ := p.state()
		assert.False(t, open, "connections are refused, not held for a holder that does not come")
		require.Len(t, w.event("a", "Paused"), 1)
		assert.Contains(t, w.event("a", "Paused")[0], "draining")
		assert.Contains(t, a.agent.Metrics().Text(), `metaparticle_holds_ended_total{reason="Paused"} 1`)
		w.annotate(theSlot, api.PausedAnnotation, "")
		w.within(100*time.Millisecond, "resumed", func() bool { return a.running("s1") || b.running("s2") })
	})
}

func TestYieldRequestForAnEndedHoldIsIgnored(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a, b := w.pair()
		hold := a.gates.hold("s1")
		a.gates.end("s1")
		w.within(time.Second, "taken", func() bool { return b.running("s2") })
		w.annotate(theSlot, api.YieldAnnotation, hold)
		w.pass(10 * time.Minute)
		assert.True(t, b.running("s2"))
		assert.Empty(t, b.gates.told())
	})
}

func TestHolderObeysYieldRequestOnlyAfterPauseEnds(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a, b := w.pair()
		w.annotate(theSlot, api.PausedAnnotation, string(api.PauseHold))
		w.annotate(theSlot, api.YieldAnnotation, a.gates.hold("s1"))
		w.pass(time.Minute)
		require.True(t, a.running("s1"), "nobody would take what the holder gives up")
		w.annotate(theSlot, api.PausedAnnotation, "")
		w.within(time.Second, "yielded", func() bool { return b.running("s2") })
	})
}

func TestVanishedSuccessorDelaysOtherStandbysByOneSecond(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a, b := w.pair()
		w.annotate(theSlot, api.YieldAnnotation, api.Yield{Hold: a.gates.hold("s1"), Successor: "gone_u"}.String())
		w.within(time.Second, "released", func() bool { return w.holder() == "" })
		took := w.within(3*time.Second, "taken", func() bool { return b.running("s2") })
		// The other standby sees the release a moment late, and then lets the successor compete alone.
		assert.InDelta(t, time.Second+elector.EventsWait, took, float64(100*time.Millisecond))
	})
}

func TestVanishedSuccessorDelaysForwardingStandbysNoLonger(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a, b := w.pair(func(c *Config) { forwarding(&ports{})(c) })
		w.annotate(theSlot, api.YieldAnnotation, api.Yield{Hold: a.gates.hold("s1"), Successor: "gone_u"}.String())
		w.within(time.Second, "released", func() bool { return w.holder() == "" })
		took := w.within(3*time.Second, "taken", func() bool { return b.running("s2") })
		// A standby that forwards connections sees each event at once.
		assert.InDelta(t, time.Second, took, float64(50*time.Millisecond))
	})
}

// The holder stops its child for an ask, and meanwhile the pod that asked is deleted. The release still
// names that pod. Another pod gives the named pod a second, and the old holder two seconds.
func TestDeletedAskerDelaysTheNextChildOnlyBriefly(t *testing.T) {
	for name, end := range map[string]func(asker *pod){
		"its shim has ended": func(asker *pod) {
			asker.gates.report("new", func(r *gate.Report) { r.Connected, r.Dead, r.Phase = false, true, gate.Ended })
		},
		"its machine has vanished": func(asker *pod) { asker.kill() },
		"its agent is stopping":    func(asker *pod) { close(asker.stop) },
		// The named pod learns of its deletion before it acquires the slot, or gives the slot back.
		"its stop signal was lost": func(*pod) {},
	} {
		for standbys := range 2 {
			t.Run(fmt.Sprintf("%s, %d standbys", name, standbys), func(t *testing.T) {
				simulate(t, func(w *world) {
					s := w.serve(standbys)
					s.holder.gates.shims["s1"].stop = 10 * time.Second
					n := w.start("n", of(newRevision), lingering(&ports{}))
					n.connect("new")
					w.within(5*time.Second, "the child stops", func() bool { return s.holder.gates.phase("s1") == gate.Draining })
					w.pass(time.Second)
					n.delete()
					end(n)
					w.within(10*time.Second, "the child has ended", s.holder.stopped)
					took := w.within(3*time.Second, "another child runs", func() bool {
						return s.holder.running("s1") || standbys == 1 && s.others[0].running("b")
					})
					assert.LessOrEqual(t, took, time.Duration(2-standbys)*time.Second+200*time.Millisecond)
					assert.Empty(t, n.gates.shim("new").ran, "the deleted pod starts no child")
				})
			})
		}
	}
}
