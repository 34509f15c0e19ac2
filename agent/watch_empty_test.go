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
		t.Run(fmt.Sprint(lasts), func(t *testing.T) {
			simulate(t, func(w *world) {
				w.free(theSlot)
				a, b := w.pair(func(c *Config) { c.LeaseDuration = lasts })
				b.link.set(func(l *link) { l.cut = true }) // the present watches end
				b.link.set(func(l *link) { l.cut, l.mute, l.idle, l.orderly = false, true, 1, true })
				w.pass(lasts/6 + lasts/12)
				close(a.stop)
				a.gates.end("s1")
				silence := min(lasts/3, 5*time.Minute)
				w.within(silence+2*time.Second, "the standby's child runs", func() bool { return b.running("s2") })
				b.kill()
				w.pass(lasts) // until the deadline of the child
			})
		})
	}
}

func TestStandbyNoticesAResumedSlotDespiteEmptyWatches(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		w.annotate(theSlot, api.PausedAnnotation, string(api.PauseHold))
		p := w.start("a")
		p.connect("s1")
		w.pass(time.Second)
		p.link.set(func(l *link) { l.cut = true })
		p.link.set(func(l *link) { l.cut, l.mute, l.idle, l.orderly = false, true, 1, true })
		w.pass(time.Minute)
		w.annotate(theSlot, api.PausedAnnotation, "")
		w.within(5*time.Minute+2*time.Second, "the child runs", func() bool { return p.running("s1") })
	})
}
