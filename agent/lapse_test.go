// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

// A machine of a pod with the gate "pod" is paused for some time. Then the machine's wall clock is
// set forward by that time, and the API server answers nothing more.
func TestPauseBringsPodGatesDrainForward(t *testing.T) {
	const usual = 15 * time.Second // from the last renewal to the drain, if the lease duration is 30 s
	for name, c := range map[string]struct {
		steps          []time.Duration
		pod, reachable bool
		drain          time.Duration // zero for none
	}{
		"short pause":           {steps: []time.Duration{5 * time.Second}, pod: true, drain: usual - 5*time.Second},
		"two pauses":            {steps: []time.Duration{3 * time.Second, 4 * time.Second}, pod: true, drain: usual - 7*time.Second},
		"pause, then step back": {steps: []time.Duration{5 * time.Second, -time.Hour}, pod: true, drain: usual - 5*time.Second},
		"step back":             {steps: []time.Duration{-time.Hour}, pod: true, drain: usual},
		"with a shim":           {steps: []time.Duration{5 * time.Second}, drain: usual},
		"renewal succeeds":      {steps: []time.Duration{time.Hour}, pod: true, reachable: true},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				var ahead time.Duration
				leaps := make(chan struct{})
				a := stubborn(w, func(cfg *Config) {
					cfg.KubeletStops, cfg.Leaps = c.pod, leaps
					cfg.Ahead = func() time.Duration { return ahead }
				})
				w.pass(time.Minute)
				a.writesAt(w)
				renewed := w.clock()
				a.link.set(func(l *link) { l.cut = !c.reachable })
				for _, step := range c.steps {
					ahead += step
					leaps <- struct{}{}
					synctest.Wait()
				}
				if c.reachable {
					w.pass(time.Minute)
					assert.Empty(t, a.gates.told())
					return
				}
				w.within(time.Minute, "drained", func() bool { return len(a.gates.told()) > 0 })
				assert.InDelta(t, c.drain.Seconds(), (w.clock() - renewed).Seconds(), .1)
			})
		})
	}
}

// After the pause of an hour, the agent waits for the answer to its renewal, but not longer than
// a request may take.
func TestLongPauseLeavesTimeForOneAnswer(t *testing.T) {
	simulate(t, func(w *world) {
		var ahead time.Duration
		leaps := make(chan struct{})
		a := stubborn(w, func(c *Config) {
			c.KubeletStops, c.Leaps = true, leaps
			c.Ahead = func() time.Duration { return ahead }
		})
		w.pass(time.Minute)
		a.link.set(func(l *link) { l.cut = true })
		ahead = time.Hour
		leaps <- struct{}{}
		took := w.within(time.Minute, "drained", func() bool { return len(a.gates.told()) > 0 })
		assert.InDelta(t, a.agent.unit.self.Budget.RequestTimeout.Seconds(), took.Seconds(), .1)
	})
}
