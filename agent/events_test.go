// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
)

// What is done in calm, as collecting garbage, takes nothing from a handover.
func TestCalmIsAfterAHandover(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		var calmA, calmB atomic.Int32
		counted := func(n *atomic.Int32) func(*Config) {
			return func(c *Config) { c.Calm = func() { n.Add(1) } }
		}
		a, b := w.start("a", counted(&calmA)), w.start("b", counted(&calmB))
		calms := func() [2]int32 { return [2]int32{calmA.Load(), calmB.Load()} }

		a.gates.connect(gate.Report{Shim: "s1", Container: "app"})
		w.within(time.Second, "child runs", func() bool { return a.running("s1") })
		b.gates.connect(gate.Report{Shim: "s2", Container: "app"})
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

// slowly is an API server that takes its time for an Event.
type slowly struct {
	API
	takes time.Duration
	asked chan struct{}
	seen  []string
}

func (s *slowly) CreateEvent(ctx context.Context, e kube.Event) error {
	s.asked <- struct{}{}
	select {
	case <-time.After(s.takes):
		s.seen = append(s.seen, e.Reason)
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// The last words of an application often come in the moment in which the agent is
// asked to stop.
func TestWhatIsBeingSaidWhenTheAgentStopsIsSaid(t *testing.T) {
	for name, tt := range map[string]struct {
		takes time.Duration
		want  []string
	}{
		"in time":             {parting / 4, []string{"first"}},
		"no longer than that": {10 * parting, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				api := &slowly{takes: tt.takes, asked: make(chan struct{})}
				ctx, cancel := context.WithCancel(t.Context())
				e := newEvents(Config{API: api, Wall: time.Now, Log: slog.New(slog.DiscardHandler), Calm: func() {}}, time.Minute)
				go e.run(ctx)
				e.add(kube.Normal, "first", "")
				<-api.asked
				stopped := time.Now()
				e.flush(ctx)
				cancel()
				synctest.Wait()
				assert.LessOrEqual(t, time.Since(stopped), parting)
				assert.Equal(t, tt.want, api.seen)
			})
		})
	}
}
