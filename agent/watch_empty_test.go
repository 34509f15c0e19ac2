// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"testing"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// A proxy can end each watch without an error before any event has come. For example, a proxy that
// cannot stream answers each watch with the status 200 and an empty body.
func TestStandbyNoticesAReleaseDespiteEmptyWatches(t *testing.T) {
	for _, lasts := range []time.Duration{30 * time.Second, 10 * time.Minute, time.Hour} {
		for idle, most := range map[time.Duration]time.Duration{
			1:                min(10*time.Second, lasts/6),
			15 * time.Second: min(lasts/3, 5*time.Minute) + 15*time.Second,
		} {
			t.Run(fmt.Sprint(lasts, idle), func(t *testing.T) {
				simulate(t, func(w *world) {
					w.free(theSlot)
					a, b := w.pair(func(c *Config) { c.LeaseDuration = lasts })
					b.emptyWatches(idle)
					w.pass(lasts/6 + lasts/12)
					close(a.stop)
					a.gates.end("s1")
					w.within(most+time.Second, "the standby's child runs", func() bool { return b.running("s2") })
					b.kill()
					w.pass(lasts) // until the deadline of the child
				})
			})
		}
	}
}

// emptyWatches ends the pod's watches. Each later watch ends after the given time, without an error
// and without an event.
func (p *pod) emptyWatches(idle time.Duration) {
	p.link.set(func(l *link) { l.cut, l.mute, l.idle, l.orderly = true, true, idle, true })
	p.link.set(func(l *link) { l.cut = false })
}

func TestStandbyNoticesAResumedSlotDespiteEmptyWatches(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		w.annotate(theSlot, api.PausedAnnotation, string(api.PauseHold))
		p := w.start("a")
		p.connect("s1")
		w.pass(time.Second)
		p.emptyWatches(1)
		w.pass(time.Minute)
		w.annotate(theSlot, api.PausedAnnotation, "")
		w.within(11*time.Second, "the child runs", func() bool { return p.running("s1") })
	})
}
