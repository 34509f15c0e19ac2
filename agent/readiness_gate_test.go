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

	"github.com/metaparticle-io/metaparticle/agent/standin"
	"github.com/metaparticle-io/metaparticle/api"
)

// The function "serving" starts a pod with the gate "readiness".
func serving(w *world, name string, change ...func(c *Config)) *pod {
	r := standin.NewReadiness(w.clock)
	ctx, cancel := context.WithCancel(w.t.Context())
	p := w.start(name, append(change, func(c *Config) {
		c.Gate, c.Shims, c.Readiness, c.Containers = r, nil, api.ReadinessHolder, []string{standin.Container}
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

func TestReadinessGateKeepsAtMostOnePodReady(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := serving(w, "a")
		w.within(2*time.Second, "a is Ready", a.shown)
		b := serving(w, "b")
		w.pass(5 * time.Second)
		assert.False(t, b.shown())
		a.agent.Yield()
		took := w.within(2*time.Second, "b is Ready", func() bool {
			assert.False(t, a.shown() && b.shown(), "two are Ready")
			return b.shown()
		})
		assert.Less(t, took, 500*time.Millisecond, "a handover takes no longer than with a child that stops at once")
	})
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

// The gate "readiness" reports the end of a hold only after the API server has stored that the pod
// is not Ready. During a partition the API server cannot store that, so the Lease expires.
func TestHoldWithReadinessGateExpiresDuringAPartition(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := serving(w, "a")
		w.within(2*time.Second, "a is Ready", a.shown)
		b := serving(w, "b")
		w.pass(time.Second)
		a.link.set(func(l *link) { l.cut = true })
		took := w.within(45*time.Second, "b is Ready", b.shown)
		assert.GreaterOrEqual(t, took, 25*time.Second, "not before the lease has run out")
		a.link.set(func(l *link) { l.cut = false })
		w.within(15*time.Second, "a is not", func() bool { return !a.shown() })
		w.pass(time.Minute)
		assert.True(t, b.shown())
	})
}

// A new agent process does not know which status the earlier process stored last.
func TestRestartedAgentKeepsSlotUntilUnreadinessIsStored(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot, "zebra")
		both := func(c *Config) { c.Slots = []string{theSlot, "zebra"} }
		a := serving(w, "a", both)
		w.within(2*time.Second, "a is Ready", a.shown)
		a.kill()
		a.link.set(func(l *link) { l.noStatus = true })
		taken := w.server.lease(theSlot)
		taken.Holder, taken.Annotations = "somebody", nil
		w.server.put(&taken)
		a = serving(w, "a", both)
		w.pass(20 * time.Second)
		assert.True(t, a.shown())
		assert.Equal(t, a.identity(), w.server.lease("zebra").Holder, "it is not released while the pod is Ready")
		a.link.set(func(l *link) { l.noStatus = false })
		w.within(15*time.Second, "released", func() bool { return w.server.lease("zebra").Holder == "" })
		assert.False(t, a.shown())
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

// The new agent process does not know which status the earlier process stored, and cannot read
// the Lease.
func TestRestartedAgentMakesPodUnreadyDespiteUnreadableLease(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := serving(w, "a")
		w.within(2*time.Second, "a is Ready", a.shown)
		a.kill()
		a.link.set(func(l *link) { l.unread = true })
		a = serving(w, "a")
		b := serving(w, "b")
		w.within(45*time.Second, "b is Ready", func() bool {
			assert.False(t, a.shown() && b.shown(), "two are Ready")
			return b.shown()
		})
	})
}

// Each write of the status consists of two requests. Here each request takes 2 s, almost as long
// as the request timeout of a 30 s lease (2.5 s).
func TestReadinessGateShowsReadyDespiteSlowAPIServer(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := serving(w, "a")
		a.link.set(func(l *link) { l.delay = 2 * time.Second })
		w.within(15*time.Second, "a is Ready", a.shown)
	})
}
