// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

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
