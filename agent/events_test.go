// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/api"
)

func TestReleaseEventTellsWhyTheApplicationEnded(t *testing.T) {
	for cause, end := range map[string]func(p *pod){
		"the application has failed":                 func(p *pod) { p.gates.fail("s1") },
		"the application has ended with exit code 0": func(p *pod) { p.gates.succeed("s1") },
		stoppedFromOutside:                           func(p *pod) { p.gates.end("s1") },
		"this pod is being deleted": func(p *pod) {
			p.delete()
			p.gates.end("s1")
		},
		"": func(p *pod) { p.agent.Yield() },
	} {
		t.Run(cause, func(t *testing.T) {
			simulate(t, func(w *world) {
				w.free(theSlot)
				a := w.start("a")
				a.connect("s1")
				w.within(time.Second, "child runs", func() bool { return a.running("s1") })
				// The answer to a write comes later than the answer to a read, because etcd syncs the write.
				a.link.set(func(l *link) { l.meddle = func() { <-time.After(time.Millisecond) } })
				w.pass(time.Minute)
				end(a)
				w.within(time.Minute, "released", func() bool { return w.event("a", api.ReasonReleased) != nil })
				want := theSlot + " is free again"
				if cause != "" {
					want += ": " + cause
				}
				assert.Equal(t, []string{want}, w.event("a", api.ReasonReleased))
			})
		})
	}
}

// The agent does not call Idle before a handover is over. The work that Idle does, such as a
// garbage collection, would delay the handover.
func TestAgentCollectsNoGarbageDuringAHandover(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		var calmA, calmB atomic.Int32
		counted := func(n *atomic.Int32) func(*Config) {
			return func(c *Config) { c.Idle = func() { n.Add(1) } }
		}
		a, b := w.start("a", counted(&calmA)), w.start("b", counted(&calmB))
		calms := func() [2]int32 { return [2]int32{calmA.Load(), calmB.Load()} }

		a.connect("s1")
		w.within(time.Second, "child runs", func() bool { return a.running("s1") })
		b.connect("s2")
		w.pass(time.Minute)
		before := calms()
		w.pass(time.Minute)
		assert.Equal(t, before, calms(), "renewals, and what a standby sees of them, are no busy moments")

		a.gates.end("s1")
		w.pass(0)
		assert.True(t, b.running("s2"))
		assert.Equal(t, before, calms())
		w.pass(time.Second)
		after := calms()
		assert.Greater(t, after[0], before[0])
		assert.Greater(t, after[1], before[1])
	})
}
