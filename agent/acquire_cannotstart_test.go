// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestSlotIsReleasedIfTheChildCannotStart(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.start("a")
		a.gates.broken = true
		a.connect("s1")
		w.within(time.Second, "a holds", func() bool { return w.server.lease(theSlot).Transitions == 1 })
		b := w.start("b")
		b.connect("s2")
		w.within(2*time.Second, "b runs", func() bool { return b.running("s2") })

		// Pod a cannot start its child. While no other pod competes, pod a acquires the slot again
		// and again, but no more often than a holder renews.
		b.gates.end("s2")
		w.pass(time.Minute)
		before := w.server.lease(theSlot).Transitions
		w.pass(time.Minute)
		assert.InDelta(t, 10, w.server.lease(theSlot).Transitions-before, 2)
		a.gates.broken = false
		w.within(6*time.Second, "a runs", func() bool { return a.running("s1") })
	})
}

// Each acquisition causes Events and writes, and keeps another pod from the slot for a moment. The
// pod acquires no more often than a holder renews.
func TestPodThatCannotStartAcquiresRarely(t *testing.T) {
	for duration, want := range map[time.Duration]int{10 * time.Second: 10, time.Minute: 6} {
		t.Run(duration.String(), func(t *testing.T) {
			simulate(t, func(w *world) {
				w.free(theSlot)
				a := w.start("a", func(c *Config) { c.LeaseDuration = duration })
				a.gates.broken = true
				a.connect("s1")
				w.pass(time.Minute)
				before := w.server.lease(theSlot).Transitions
				w.pass(time.Minute)
				assert.InDelta(t, want, w.server.lease(theSlot).Transitions-before, 2)
			})
		})
	}
}
