// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A suspended agent receives nothing. The kernel keeps the events that arrive meanwhile, and the
// agent handles these events when the agent continues. So a pod may see a renewal long after the
// death of the holder.
func TestSuspendedPodNeverSkipsForADeadHolder(t *testing.T) {
	for name, silent := range map[string]time.Duration{
		"after the last renewal":   time.Second,
		"after a silent holder":    9 * time.Second,
		"just before the takeover": 29 * time.Second,
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				w.free(theSlot)
				a := w.start("a")
				a.connect("s1")
				w.within(time.Second, "the holder runs", func() bool { return a.running("s1") })
				w.pass(2 * time.Second)
				renewed := w.server.lease(theSlot)
				a.kill()
				a.gates.end("s1")
				runs := make(chan struct{}, 1) // the channel is empty while the agent is suspended
				runs <- struct{}{}
				b := w.start("b", skips, func(c *Config) {
					c.Clock = func() time.Duration {
						<-runs
						defer func() { runs <- struct{}{} }()
						return w.clock()
					}
				})
				b.connect("s2")
				w.pass(silent)
				require.Empty(t, b.gates.codes())
				<-runs
				for range 3 {
					renewed.RenewTime = renewed.RenewTime.Add(time.Second)
					w.server.put(&renewed)
				}
				w.pass(10 * time.Minute)
				runs <- struct{}{}
				w.within(time.Minute, "the pod runs", func() bool { return b.running("s2") || b.dismissed() })
				assert.Empty(t, b.gates.codes(), "the holder has been dead for ten minutes")
			})
		})
	}
}

// A person or another controller may annotate the Lease of a dead holder. Only a renewal shows that
// the holder lives.
func TestForeignWritesNeverShowThatHolderLives(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.start("a")
		a.connect("s1")
		w.within(time.Second, "the holder runs", func() bool { return a.running("s1") })
		b := w.start("b", skips)
		w.pass(20 * time.Second)
		a.kill()
		a.gates.end("s1")
		for range 4 {
			w.pass(9 * time.Second)
			edited := w.server.lease(theSlot)
			edited.Annotations["example.com/note"] = edited.ResourceVersion
			w.server.put(&edited)
		}
		b.connect("s2")
		w.within(time.Minute, "the pod runs", func() bool { return b.running("s2") || b.dismissed() })
		assert.Empty(t, b.gates.codes(), "the last renewal is older than the lease duration")
	})
}
