// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// If the watches of a standby deliver nothing, the takeover after a vanished holder still takes a
// bounded time. The bound is the sum of three times: the lease duration, the head start of the
// holder, and twice the longest wait between reads. Package lease gives the holder a sixth of the
// lease duration as its head start.
func TestTakeoverTimeIsBoundedEvenIfWatchesFail(t *testing.T) {
	for name, c := range map[string]struct {
		duration time.Duration
		trouble  func(l *link)
	}{
		"cut when idle":           {10 * time.Minute, func(l *link) { l.idle = 50 * time.Second }},
		"cut within each renewal": {30 * time.Second, func(l *link) { l.idle = 4 * time.Second }},
		"cut at once":             {30 * time.Second, func(l *link) { l.idle = 1 }},
		"closed at once":          {30 * time.Second, func(l *link) { l.idle, l.orderly = 1, true }},
		"too many":                {30 * time.Second, func(l *link) { l.unwatched = &kube.StatusError{Code: 429} }},
		"too many, of an hour":    {time.Hour, func(l *link) { l.unwatched = &kube.StatusError{Code: 429, RetryAfter: time.Hour} }},
		"forbidden":               {10 * time.Second, func(l *link) { l.unwatched = &kube.StatusError{Code: 403} }},
		"page of a proxy (404)":   {30 * time.Second, func(l *link) { l.unwatched = &kube.StatusError{Code: 404} }},
		"too old":                 {30 * time.Second, func(l *link) { l.unwatched = &kube.StatusError{Code: 410} }},
		"mute":                    {30 * time.Second, func(l *link) { l.mute = true }},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				w.server.put(&kube.Lease{Name: theSlot, Holder: "vanished", DurationSeconds: int(c.duration.Seconds())})
				a := w.start("a", func(cfg *Config) { cfg.LeaseDuration = c.duration })
				a.link.set(c.trouble)
				a.connect("s1")
				began := w.clock()
				w.within(c.duration*7/6+2*slowest, "taken", func() bool { return a.running("s1") })
				assert.GreaterOrEqual(t, w.clock()-began, c.duration, "the holder may have lived until then")
				// After the agent's end, the fake shim's watchdog kills the child at the deadline
				// of the last grant.
				a.kill()
				w.pass(c.duration)
			})
		})
	}
}

func TestRenewalDuringNetworkCutRestartsTheStandbysWait(t *testing.T) {
	simulate(t, func(w *world) {
		w.server.put(&kube.Lease{Name: theSlot, Holder: "other", DurationSeconds: 30})
		a := w.start("a")
		a.connect("s1")
		w.pass(25 * time.Second)
		a.link.set(func(l *link) { l.cut = true })
		w.pass(2 * time.Second)
		l := w.server.lease(theSlot)
		l.Holder = "other"
		w.server.put(&l)
		renewed := w.clock()
		w.pass(20 * time.Second)
		a.link.set(func(l *link) { l.cut = false })
		w.within(time.Minute, "taken", func() bool { return w.holder() == a.identity() })
		assert.GreaterOrEqual(t, w.clock()-renewed, 30*time.Second)
	})
}

func TestStandbyLimitsHugeLeaseDurationsToAnHour(t *testing.T) {
	simulate(t, func(w *world) {
		w.server.put(&kube.Lease{Name: theSlot, Holder: "somebody", DurationSeconds: 1<<31 - 1})
		a := w.start("a")
		a.connect("s1")
		w.pass(api.MaxLeaseDuration - time.Second)
		assert.False(t, a.running("s1"))
		w.within(2*time.Second, "taken", func() bool { return a.running("s1") })
	})
}
