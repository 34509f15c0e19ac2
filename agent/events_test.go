// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/probe"
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
		t.Run(cause, simulated(func(t *testing.T, w *world) {
			a := w.hold()
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
		}))
	}
}

// mostCaused bounds the Events that programs cause in a test of a few minutes.
const mostCaused = 30

// eventsSince returns the reasons of all Events after the first n.
func (w *world) eventsSince(n int) (reasons []string) {
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	for _, e := range w.server.events[n:] {
		reasons = append(reasons, e.Reason)
	}
	return reasons
}

// holding starts a pod that holds, with the child of the shim s1. The result n is the number of
// Events so far.
func (w *world) holding(change ...func(c *Config)) (a *pod, n int) {
	a = w.hold(change...)
	w.pass(time.Second)
	return a, len(w.eventsSince(0))
}

// The method "flood" reports a new failure of the shim every 10 ms, for a minute.
func (w *world) flood(a *pod, shim gate.ShimID) {
	for i := range 6000 {
		a.gates.report(shim, func(r *gate.Report) {
			r.Trouble = gate.Trouble{Serial: i + 1, Reason: gate.ReasonPreStop, Message: fmt.Sprint("failure ", i)}
		})
		w.pass(10 * time.Millisecond)
	}
}

func TestProgramCausesFewEvents(t *testing.T) {
	simulate(t, func(w *world) {
		var lines bytes.Buffer
		a, n := w.holding(func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&lines, nil)) })
		w.flood(a, "s1")
		reasons := w.eventsSince(n)
		assert.NotEmpty(t, reasons)
		assert.Less(t, len(reasons), mostCaused)
		told := strings.Count(lines.String(), "an Event is left out")
		assert.NotZero(t, told)
		assert.Less(t, told, 3, "one line for each time that the bound is reached")

		// After the flood, the real failure of a hook is soon reported again.
		w.pass(5 * time.Minute)
		n = len(w.eventsSince(0))
		a.gates.report("s1", func(r *gate.Report) {
			r.Trouble = gate.Trouble{Serial: 7000, Reason: gate.ReasonPostStart, Message: "real"}
		})
		w.pass(time.Second)
		assert.Equal(t, []string{gate.ReasonPostStart, "Killing"}, w.eventsSince(n))
	})
}

func TestShimOfUngatedContainerCausesNoEvent(t *testing.T) {
	simulate(t, func(w *world) {
		a, n := w.holding()
		a.gates.connect(gate.Report{Shim: "false", Container: "other"})
		w.flood(a, "false")
		a.gates.report("false", func(r *gate.Report) { r.Silent = true })
		w.pass(time.Second)
		assert.Zero(t, len(w.eventsSince(n)))
	})
}

// A false shim can also cause an Event by its silence, or by the end of its wait.
func TestManyFalseShimsCauseFewEvents(t *testing.T) {
	for reason, connect := range map[string]func(p *pod, id gate.ShimID){
		"ShimSilent": func(p *pod, id gate.ShimID) {
			p.gates.connect(gate.Report{Shim: id, Container: "app", Phase: gate.Ended, Silent: true})
		},
		"WaitedTooLong": func(p *pod, id gate.ShimID) {
			p.gates.connect(gate.Report{Shim: id, Container: "other", Since: time.Nanosecond})
		},
	} {
		t.Run(reason, simulated(func(t *testing.T, w *world) {
			a, n := w.holding(func(c *Config) { c.WaitAtMost = time.Minute })
			for i := range 200 {
				connect(a, gate.ShimID(fmt.Sprint("false", i)))
				w.pass(100 * time.Millisecond)
			}
			caused := slices.DeleteFunc(w.eventsSince(n), func(other string) bool { return other != reason })
			assert.NotEmpty(t, caused)
			assert.Less(t, len(caused), mostCaused)
		}))
	}
}

func TestFailedStartupProbesCauseFewEvents(t *testing.T) {
	simulate(t, func(w *world) {
		fails := 0
		startup := &api.Probe{TimeoutSeconds: 1, PeriodSeconds: 1, SuccessThreshold: 1, FailureThreshold: 1000}
		startup.TCPSocket = &api.TCPSocketAction{Port: 80}
		_, n := w.holding(func(c *Config) {
			c.Probes = map[string]api.Probes{"app": {Startup: startup}}
			c.Probe = func(_ context.Context, _ api.Handler, _ string, _ time.Duration) probe.Result {
				fails++
				return probe.Result{Outcome: probe.Failure, Output: fmt.Sprint("refused from port ", fails)}
			}
		})
		w.pass(2 * time.Minute)
		reasons := w.eventsSince(n)
		assert.Contains(t, reasons, "Unhealthy")
		assert.Less(t, len(reasons), mostCaused)
	})
}

func TestShimOfInitContainerReportsItsFailure(t *testing.T) {
	simulate(t, func(w *world) {
		a, n := w.holding(func(c *Config) { c.InitContainers = []string{"migrate"} })
		a.gates.connect(gate.Report{Shim: "i1", Container: "migrate", Phase: gate.Ended,
			Trouble: gate.Trouble{Serial: 1, Reason: gate.ReasonNotPermitted, Message: "no right"}})
		w.pass(time.Second)
		assert.Equal(t, []string{gate.ReasonNotPermitted}, w.eventsSince(n))
	})
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
