// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

// deaf is a gate that loses one grant, as a full socket does. If the field "any" is unset, the gate
// loses only a grant that thaws a child.
type deaf struct {
	*gates
	lose  atomic.Bool
	any   bool
	calls atomic.Int32
}

var errFull = errors.New("send grant: resource temporarily unavailable")

func (d *deaf) Grant(id gate.ShimID, g gate.Grant) error {
	d.calls.Add(1)
	if (d.any || g.Leap != 0) && d.lose.CompareAndSwap(true, false) {
		return errFull
	}
	return d.gates.Grant(id, g)
}

// deafPod starts a pod whose gate loses grants.
func (w *world) deafPod(duration time.Duration, first bool) (*pod, *deaf) {
	w.free(theSlot)
	var g *deaf
	a := w.start("a", func(c *Config) {
		c.LeaseDuration = duration
		g = &deaf{gates: c.Gate.(*gates), any: first}
		g.lose.Store(first)
		c.Gate = g
	})
	a.connect("s1")
	return a, g
}

func TestLostGrantIsSentAgainSoon(t *testing.T) {
	for _, d := range []time.Duration{30 * time.Second, time.Hour} {
		t.Run(fmt.Sprint("first ", d), func(t *testing.T) {
			simulate(t, func(w *world) {
				a, _ := w.deafPod(d, true)
				took := w.within(2*d, "child runs", func() bool { return a.running("s1") })
				assert.LessOrEqual(t, took, 2*time.Second, "the pod holds, and nothing runs")
				a.kill()
				w.pass(2 * d)
			})
		})
		t.Run(fmt.Sprint("thaw ", d), func(t *testing.T) {
			simulate(t, func(w *world) {
				a, g := w.deafPod(d, false)
				w.within(time.Second, "child runs", func() bool { return a.running("s1") })
				w.pass(d)
				g.lose.Store(true)
				before := g.calls.Load()
				a.leaps("s1", 7)
				took := w.within(2*d, "thawed", func() bool { _, ok := a.answer(); return ok })
				assert.LessOrEqual(t, took, 2*time.Second, "the child stays frozen")
				assert.LessOrEqual(t, g.calls.Load()-before, int32(4), "the agent waits before the next attempt")
				a.kill()
				w.pass(2 * d)
			})
		})
	}
}
