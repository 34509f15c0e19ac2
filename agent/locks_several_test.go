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

var both = func(c *Config) { c.Slots = []string{"lock.a", "lock.b"} }

func TestHoldOfTwoSlotsEndsAtEarlierDeadline(t *testing.T) {
	for _, broken := range []string{"lock.a", "lock.b"} {
		t.Run(broken, func(t *testing.T) {
			simulate(t, func(w *world) {
				w.free("lock.a", "lock.b")
				a := w.start("a", both)
				a.connect("s1")
				w.within(time.Second, "child runs", func() bool { return a.running("s1") })
				w.pass(time.Second)
				a.link.set(func(l *link) { l.broken = broken })
				took := w.within(20*time.Second, "drained", func() bool { return a.gates.phase("s1") != gate.Running })
				assert.InDelta(t, 14, took.Seconds(), 0.2, "15 s after the renewal of the one that cannot be renewed")
			})
		})
	}
}

func TestAgentHoldsExactlyOneSlotOfASemaphore(t *testing.T) {
	pool := []string{"semaphore.pool.0", "semaphore.pool.1", "semaphore.pool.2"}
	simulate(t, func(w *world) {
		w.free(pool...)
		a := w.start("a", func(c *Config) { c.Slots, c.Any = pool, true })
		a.connect("s1")
		held := func() (slots []string) {
			for _, slot := range pool {
				if w.server.lease(slot).Holder == a.identity() {
					slots = append(slots, slot)
				}
			}
			return slots
		}
		w.within(time.Second, "child runs", func() bool { return a.running("s1") })
		first := held()
		require.Len(t, first, 1)

		// Another pod now holds the slot, so the child ends, and the agent takes another slot.
		l := w.server.lease(first[0])
		l.Holder, l.RenewTime = "somebody", time.Now()
		w.server.put(&l)
		w.within(10*time.Second, "child runs under another slot", func() bool {
			slots := held()
			return a.running("s1") && len(slots) == 1 && slots[0] != first[0]
		})
		assert.Len(t, a.gates.drains, 1, "the child of the lost slot was stopped")
		w.pass(2 * time.Minute)
		require.True(t, a.running("s1"))
		require.Len(t, held(), 1)
		assert.NotEqual(t, first, held())
	})
}

func TestPodThatLosesFirstLockReleasesTheSecond(t *testing.T) {
	simulate(t, func(w *world) {
		w.free("lock.a", "lock.b")
		a := w.start("a", both)
		a.connect("s1")
		w.within(time.Second, "child runs", func() bool { return a.running("s1") })
		l := w.server.lease("lock.a")
		l.Holder = "somebody"
		w.server.put(&l)
		// A pod must not wait for the first lock while the pod holds the second, so the
		// agent releases the second lock, too.
		w.within(8*time.Second, "given up", func() bool { return w.server.lease("lock.b").Holder == "" })
		assert.Equal(t, gate.Waiting, a.gates.phase("s1"))
	})
}

func TestPodsWithOverlappingLocksDoNotDeadlock(t *testing.T) {
	simulate(t, func(w *world) {
		w.free("lock.a", "lock.b", "lock.c")
		x := w.start("x", func(c *Config) { c.Slots = []string{"lock.a", "lock.c"} })
		y := w.start("y", func(c *Config) { c.Slots = []string{"lock.a", "lock.b", "lock.c"} })
		z := w.start("z", func(c *Config) { c.Slots = []string{"lock.b", "lock.c"} })
		pods := []*pod{x, y, z}
		for _, p := range pods {
			p.connect("s")
		}
		ran := map[*pod]bool{}
		for range pods {
			w.within(time.Second, "one runs", func() bool {
				running := 0
				for _, p := range pods {
					if p.running("s") {
						running++
						ran[p] = true
					}
				}
				require.LessOrEqual(t, running, 1)
				return running == 1
			})
			for _, p := range pods {
				if p.running("s") {
					p.gates.end("s")
					break // the next child starts immediately, and belongs to the next round
				}
			}
		}
		assert.Len(t, ran, 3)
		_, err := New(Config{Pod: Pod{PodName: "a", PodUID: "u", BootID: boot}, Claims: Claims{Slots: []string{"lock.b", "lock.a"}}})
		assert.Error(t, err, "an order that is not everybody's")
	})
}

func TestYieldingAgentRetriesAReleaseThatFailed(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a, b := w.pair()
		a.agent.Yield()
		w.pass(100 * time.Millisecond)
		a.link.mu.Lock()
		a.link.broken = theSlot
		a.link.mu.Unlock()
		w.pass(4 * time.Second)
		require.Equal(t, gate.Waiting, a.gates.phase("s1"))
		assert.Equal(t, a.identity(), w.holder())
		a.link.mu.Lock()
		a.link.broken = ""
		a.link.mu.Unlock()
		w.within(2*time.Second, "handed over", func() bool { return b.running("s2") })
	})
}

func TestStoppingAgentRetriesSlotReleaseUntilLeaseExpires(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.start("a")
		a.connect("s1")
		w.within(time.Second, "child runs", func() bool { return a.running("s1") })
		w.pass(time.Second)
		close(a.stop)
		a.link.set(func(l *link) { l.refuse = &kube.StatusError{Code: 503} })
		a.gates.end("s1")
		w.pass(3 * time.Second)
		assert.Empty(t, a.done)
		a.link.set(func(l *link) { l.refuse = nil })
		w.pass(1500 * time.Millisecond)
		assert.Empty(t, w.holder())
		assert.Len(t, a.done, 1)

		b := w.start("b")
		b.connect("s2")
		w.within(time.Second, "child runs", func() bool { return b.running("s2") })
		close(b.stop)
		b.link.set(func(l *link) { l.cut = true })
		b.gates.end("s2")
		w.pass(25 * time.Second)
		assert.Empty(t, b.done)
		w.pass(7 * time.Second)
		assert.Len(t, b.done, 1, "not for ever")
	})
}

// Without the number of shards, a claim would ignore the stamps of its Leases.
func TestAgentRefusesShardsIfTheirCountIsMissing(t *testing.T) {
	for _, slots := range [][]string{{"shards.deployment.web.1"}, {"lock.a", "shards.deployment.web.0"}} {
		_, err := New(Config{Pod: Pod{PodName: "a", PodUID: "u", BootID: boot}, Claims: Claims{Slots: slots}})
		assert.ErrorContains(t, err, "are not all shards of one workload")
	}
	_, err := New(Config{Pod: Pod{PodName: "a", PodUID: "u", BootID: boot}, Claims: Claims{Slots: []string{"shards.deployment.web.0"}, Shards: 1}})
	assert.ErrorContains(t, err, "a gate", "the next check")
}
