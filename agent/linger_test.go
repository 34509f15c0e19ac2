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
)

const endpointDelay = 2 * time.Second

// lingering makes a pod forward one port, with an endpoint delay.
func lingering(p *ports) func(c *Config) {
	return func(c *Config) {
		forwarding(p)(c)
		c.EndpointDelay = endpointDelay
	}
}

// ended reports whether the agent's process has ended without an error.
func (p *pod) ended() bool {
	select {
	case err := <-p.done:
		require.NoError(p.world.t, err)
		p.done <- err
		return true
	default:
		return false
	}
}

// endsWithin waits until the agent's process has ended, and returns how long the wait took. If the
// wait exceeds the limit, the test fails.
func (p *pod) endsWithin(limit time.Duration) time.Duration {
	p.world.t.Helper()
	return p.world.within(limit, "the agent ends", p.ended)
}

func TestDeletedStandbyLingersBeforeItEnds(t *testing.T) {
	atOnce := func(*world, *pod) {}
	for name, c := range map[string]struct {
		ports *ports
		stop  func(w *world, b *pod)
		want  time.Duration
	}{
		"the ports could not be opened":         {&ports{busy: assert.AnError}, atOnce, 0},
		"no connection is left after the delay": {&ports{}, atOnce, endpointDelay},
		"the connections last until the grace":  {&ports{lasts: true}, atOnce, 28 * time.Second},
		"other containers took half of the grace": {&ports{lasts: true}, func(w *world, _ *pod) {
			w.pass(15 * time.Second)
		}, 13 * time.Second},
		"other containers took almost all of the grace": {&ports{lasts: true}, func(w *world, _ *pod) {
			w.pass(29 * time.Second)
		}, 0},
		"the deletion shortened the grace": {&ports{lasts: true}, func(_ *world, b *pod) {
			b.link.set(func(l *link) { l.graceEnds = time.Now().Add(6 * time.Second) })
		}, 4 * time.Second},
		"the grace is shorter than the delay": {&ports{}, func(_ *world, b *pod) {
			b.link.set(func(l *link) { l.graceEnds = time.Now().Add(3 * time.Second) })
		}, time.Second},
		"the API server does not answer": {&ports{lasts: true}, func(_ *world, b *pod) {
			b.link.set(func(l *link) { l.cut = true })
		}, shortLinger},
		"the API server answers late": {&ports{lasts: true}, func(w *world, b *pod) {
			b.link.set(func(l *link) { l.refuse = &kube.StatusError{Code: 503} })
			time.AfterFunc(500*time.Millisecond, func() { b.link.set(func(l *link) { l.refuse = nil }) })
		}, 28 * time.Second},
		"the kubelet stops a pod that is not deleted": {&ports{lasts: true}, func(_ *world, b *pod) {
			b.link.set(func(l *link) { l.deleted = false })
		}, shortLinger},
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			w.free(theSlot)
			a, b := w.start("a"), w.start("b", lingering(c.ports))
			a.connect("s1")
			w.pass(time.Minute)
			open, _ := c.ports.state()
			require.Equal(t, c.ports.busy == nil, open)
			b.delete()
			c.stop(w, b)
			close(b.stop)
			assert.InDelta(t, c.want.Seconds(), b.endsWithin(time.Minute).Seconds(), 0.05)
		}))
	}
}

// The shim of a lingering pod may still wait for a grant, if the kubelet's signal came before the
// shim could handle signals.
func TestLingeringStandbyNeverTakesASlot(t *testing.T) {
	for name, another := range map[string]bool{"while nobody else wants it": false, "while another does": true} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			w.free(theSlot)
			of := ports{lasts: true}
			a, b := w.start("a"), w.start("b", lingering(&of))
			a.connect("s1")
			w.within(time.Second, "child runs", func() bool { return a.running("s1") })
			b.connect("s2")
			w.pass(time.Minute)
			// The API server refuses the patches of b's status. Only the answers to these
			// patches would tell b's agent of a deletion.
			b.link.set(func(l *link) { l.noStatus = true })
			close(b.stop)
			w.pass(time.Second)
			require.False(t, b.ended())
			open, target := of.state()
			assert.True(t, open)
			assert.Equal(t, a.config.PodIP, target)
			c := w.start("c")
			if another {
				c.connect("s3")
			}
			w.pass(10 * time.Millisecond)
			a.gates.end("s1")
			w.pass(10 * time.Millisecond)
			if another {
				assert.True(t, c.running("s3"), "the linger does not delay the next holder")
				_, target = of.state()
				assert.Equal(t, c.config.PodIP, target, "the linger follows the holder")
			} else {
				assert.Empty(t, w.holder())
				_, target = of.state()
				assert.Empty(t, target, "connections are held")
			}
			b.endsWithin(time.Second)
			w.pass(time.Minute)
			assert.Equal(t, gate.Waiting, b.gates.phase("s2"))
			assert.Empty(t, b.gates.given())
		}))
	}
}

// A controller that has deleted all pods creates no pod before the deleted pods have ended. So a
// lingering standby must not wait until a new pod takes the slot.
func TestLingeringStandbyEndsIfSlotStaysFree(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		of := ports{lasts: true}
		a, b := w.start("a"), w.start("b", lingering(&of), func(c *Config) { c.Grace = 10 * time.Minute })
		a.connect("s1")
		w.pass(time.Minute)
		b.delete()
		close(b.stop)
		w.pass(time.Minute)
		require.False(t, b.ended())
		a.gates.end("s1")
		w.pass(longestVacancy - time.Second)
		require.False(t, b.ended())
		b.endsWithin(1100 * time.Millisecond)
		open, _ := of.state()
		assert.False(t, open, "no port is opened again")
	})
}
