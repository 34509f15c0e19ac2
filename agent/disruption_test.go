// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

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
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
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
			})
		})
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
