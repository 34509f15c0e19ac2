// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"testing"
	"time"
)

// A watch can stay open although no event arrives any more. For example, a proxy keeps the connection
// of an API server that has vanished.
func TestStandbyNoticesAReleaseDespiteAMuteWatch(t *testing.T) {
	for _, lasts := range []time.Duration{30 * time.Second, 10 * time.Minute, time.Hour} {
		t.Run(fmt.Sprint(lasts), func(t *testing.T) {
			simulate(t, func(w *world) {
				w.free(theSlot)
				a, b := w.pair(func(c *Config) { c.LeaseDuration = lasts })
				b.link.set(func(l *link) { l.mute = true })
				w.pass(lasts/6 + lasts/12)
				close(a.stop)
				a.gates.end("s1")
				silence := min(lasts/3, 5*time.Minute)
				w.within(silence+time.Second, "the standby's child runs", func() bool { return b.running("s2") })
				b.kill()
				w.pass(lasts) // until the deadline of the child
			})
		})
	}
}
