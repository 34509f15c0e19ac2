// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/show"
	"github.com/metaparticle-io/metaparticle/api"
)

// An overloaded etcd can store each write only after the agent has given up, and still answer reads at
// once. A hold must begin, and last, although no agent gets an answer to a stored write.
func TestSlotIsAcquiredDespiteSlowWrites(t *testing.T) {
	pool := []string{api.SemaphoreLease("pool", 0), api.SemaphoreLease("pool", 1), api.SemaphoreLease("pool", 2)}
	locks := []string{api.LockLease("a"), api.LockLease("b"), api.LockLease("c")}
	for name, test := range map[string]struct {
		config func(c *Config)
		want   int
		most   time.Duration
	}{
		"singleton":  {func(*Config) {}, 1, 20 * time.Second},
		"semaphore":  {func(c *Config) { c.Slots, c.Any = pool, true }, 3, time.Minute},
		"locks":      {func(c *Config) { c.Slots = locks }, 1, time.Minute},
		"start lock": {func(c *Config) { c.StartSlots = []string{api.LockLease("start")} }, 1, time.Minute},
	} {
		for _, slow := range []time.Duration{2600 * time.Millisecond, 3 * time.Second, 4 * time.Second} {
			t.Run(name+" "+slow.String(), func(t *testing.T) {
				simulate(t, func(w *world) {
					w.free(slices.Concat([]string{theSlot, api.LockLease("start")}, pool, locks)...)
					var all []*pod
					for _, pod := range []string{"a", "b", "c"} {
						p := w.start(pod, test.config)
						p.set(func(l *link) { l.slow = slow })
						p.connect("s")
						all = append(all, p)
					}
					running := func() (n int) {
						for _, p := range all {
							if p.running("s") {
								n++
							}
						}
						return n
					}
					w.within(test.most, "the children run", func() bool { return running() == test.want })
					for range 300 {
						w.pass(time.Second)
						require.Equal(t, test.want, running(), "the holds last")
					}
				})
			})
		}
	}
}

// The answer to the acquiring write is lost, and the shim ends. So the agent sends a release, which the
// API server stores only after the agent has given up. Meanwhile another shim waits.
func TestLateReleaseEndsNoHoldWithChildren(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a, b := w.start("a"), w.start("b")
		w.pass(10 * time.Second)
		a.set(func(l *link) { l.lose = true })
		a.connect("s1")
		w.within(100*time.Millisecond, "the acquiring write is stored", func() bool { return w.holder() == a.identity() })
		a.set(func(l *link) { l.slow = 2600 * time.Millisecond })
		a.gates.report("s1", func(r *gate.Report) { r.Connected, r.Dead = false, true })
		w.pass(3 * time.Second)
		a.connect("s2")
		b.connect("s3")
		w.pass(time.Minute)
		assert.NotContains(t, a.gates.told(), show.ReasonLost, "another pod's child would run beside the lost one")
		assert.True(t, a.running("s2") || b.running("s3"))
	})
}
