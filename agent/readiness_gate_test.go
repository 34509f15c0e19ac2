// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/podgate"
	"github.com/metaparticle-io/metaparticle/api"
)

// The function "serving" starts a pod with the gate "readiness".
func serving(w *world, name string, change ...func(c *Config)) *pod {
	r := podgate.NewReadiness(w.clock)
	ctx, cancel := context.WithCancel(w.t.Context())
	p := w.start(name, append(change, func(c *Config) {
		c.Gate, c.Shims, c.Readiness, c.Containers = r, nil, api.ReadinessHolder, []string{podgate.Container}
	})...)
	go func() { _ = r.Run(ctx) }()
	kill := p.cancel
	p.cancel = func() { kill(); cancel() }
	return p
}

// shown reports whether the API server has stored that the pod is Ready.
func (p *pod) shown() bool {
	p.link.mu.Lock()
	defer p.link.mu.Unlock()
	return len(p.patches) > 0 && strings.Contains(p.patches[len(p.patches)-1], `"status":"True"`)
}

// The next holder becomes Ready as soon as it holds. So before a release, the API server must
// have stored that the old holder is not Ready.
func TestYieldingPodKeepsSlotUntilUnreadinessIsStored(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := serving(w, "a")
		w.within(2*time.Second, "a is Ready", a.shown)
		b := serving(w, "b")
		w.pass(time.Second)
		a.link.set(func(l *link) { l.noStatus = true })
		a.agent.Yield()
		w.pass(10 * time.Second)
		assert.True(t, a.shown())
		assert.Equal(t, a.identity(), w.holder(), "it goes on holding")
		assert.False(t, b.shown())
		a.link.set(func(l *link) { l.noStatus = false })
		w.within(15*time.Second, "b is Ready", func() bool {
			assert.False(t, a.shown() && b.shown(), "two are Ready")
			return b.shown()
		})
	})
}

// A reboot ends all processes of the pod. But the API server still shows the pod as Ready, so with
// the gate "readiness" the reboot does not prove that the hold is over.
func TestReadyPodKeepsSlotAfterItsNodeReboots(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := serving(w, "a")
		w.within(2*time.Second, "a is Ready", a.shown)
		a.kill()
		a.link.set(func(l *link) { l.noStatus = true })
		a = serving(w, "a", func(c *Config) { c.BootID = "another boot" })
		b := serving(w, "b")
		w.pass(20 * time.Second)
		assert.True(t, a.shown())
		assert.Equal(t, a.identity(), w.holder(), "it is not released while the pod is Ready")
		before := len(a.patches)
		a.link.set(func(l *link) { l.noStatus = false })
		w.within(15*time.Second, "it is stored that a is not Ready", func() bool {
			assert.False(t, a.shown() && b.shown(), "two are Ready")
			a.link.mu.Lock()
			defer a.link.mu.Unlock()
			return slices.ContainsFunc(a.patches[before:], func(patch string) bool { return strings.Contains(patch, `"status":"False"`) })
		})
	})
}
