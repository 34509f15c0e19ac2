// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/claim"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// requested lets the time d pass, and returns the number of the agent's requests for Leases in
// that time.
func (p *pod) requested(d time.Duration) int {
	count := func() (n int) {
		p.link.mu.Lock()
		defer p.link.mu.Unlock()
		return p.link.sent
	}
	before := count()
	p.world.pass(d)
	return count() - before
}

func TestAgentBoundsItsRequestsDuringEveryFault(t *testing.T) {
	refused := &kube.StatusError{Code: 403}
	for name, weather := range map[string]func(l *link){
		"writes refused":               func(l *link) { l.unwritten = refused },
		"writes in conflict":           func(l *link) { l.unwritten = &kube.StatusError{Code: 409} },
		"writes and watches refused":   func(l *link) { l.unwritten, l.unwatched = refused, refused },
		"watches too old":              func(l *link) { l.unwatched = &kube.StatusError{Code: 410} },
		"writes failed, watches stale": func(l *link) { l.unwritten, l.unwatched = refused, &kube.StatusError{Code: 410} },
		"watches refused":              func(l *link) { l.unwatched = refused },
		"watches cut at once":          func(l *link) { l.idle = 1 },
		"watches closed at once":       func(l *link) { l.idle, l.orderly = 1, true },
		"reads refused":                func(l *link) { l.unread = true },
		"all refused":                  func(l *link) { l.refuse = refused },
	} {
		for _, duration := range []time.Duration{api.MinLeaseDuration, api.DefaultLeaseDuration} {
			for _, holder := range []string{"", "b_u", "a_u"} {
				t.Run(name+", "+duration.String()+", held by "+holder, func(t *testing.T) {
					simulate(t, func(w *world) {
						w.server.put(&kube.Lease{Name: theSlot, Holder: holder, DurationSeconds: int(duration.Seconds())})
						a := w.start("a", func(c *Config) { c.LeaseDuration = duration })
						a.link.set(weather)
						a.connect("s1")
						w.pass(time.Minute)
						for range 3 {
							assert.LessOrEqual(t, a.requested(time.Minute), claim.PerMinute+claim.Burst)
						}
					})
				})
			}
		}
	}
}

func TestHolderBoundsItsRequestsDespiteConflictingWrites(t *testing.T) {
	simulate(t, func(w *world) {
		w.free(theSlot)
		a := w.start("a")
		a.connect("s1")
		w.within(time.Second, "child runs", func() bool { return a.running("s1") })
		// Before each write of the agent, another program writes the Lease, so the agent's
		// write conflicts.
		a.link.set(func(l *link) {
			writes := 0
			l.meddle = func() {
				if writes++; writes > 1000 {
					return // without this bound, the test would hang instead of failing
				}
				l := w.server.lease(theSlot)
				w.server.put(&l)
			}
		})
		assert.LessOrEqual(t, a.requested(time.Minute), claim.PerMinute+claim.Burst)
	})
}

// Another client damages the time of the acquisition in a held Lease. After that, the Lease's time
// of serving can seem to belong to an earlier hold. The holder must not react by a series of
// renewals.
func TestHolderBoundsItsRequestsDespiteDamagedAcquireTime(t *testing.T) {
	for name, damaged := range map[string]time.Time{"none": {}, "late": time.Date(9000, 1, 1, 0, 0, 0, 0, time.UTC)} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				w.free(theSlot)
				a := w.start("a")
				a.connect("s1")
				serves := func() bool { l := w.server.lease(theSlot); return l.Annotations[api.ServingAnnotation] != "" }
				w.within(5*time.Second, "the holder serves", func() bool { return a.running("s1") && serves() })
				l := w.server.lease(theSlot)
				acquired := l.AcquireTime
				l.AcquireTime = damaged
				w.server.put(&l)
				assert.LessOrEqual(t, a.requested(time.Minute), 2*6+2, "a read and a renewal in each sixth of 30 s")
				assert.True(t, acquired.Equal(w.server.lease(theSlot).AcquireTime), "the next renewal repairs the time")
			})
		})
	}
}

func TestStandbyReadsLeaseRecreatedWithoutAWatchEvent(t *testing.T) {
	simulate(t, func(w *world) {
		w.server.put(&kube.Lease{Name: theSlot, Holder: "vanished", DurationSeconds: 30})
		a := w.start("a")
		a.connect("s1")
		w.pass(time.Second)
		w.server.remove(theSlot)
		w.pass(0)
		// The watch has reported the deletion of the Lease, and reports no later event.
		a.link.set(func(l *link) { l.mute = true })
		w.server.put(&kube.Lease{Name: theSlot, Holder: "unknown", DurationSeconds: 30})
		w.within(30*time.Second+slowest, "taken", func() bool { return a.running("s1") })
	})
}

func TestStandbyWatchesLeaseDespiteExpiredResourceVersion(t *testing.T) {
	simulate(t, func(w *world) {
		w.server.put(&kube.Lease{Name: theSlot, Holder: "other", DurationSeconds: 600})
		a := w.start("a")
		a.link.set(func(l *link) { l.forgetful = true })
		a.connect("s1")
		w.pass(time.Second)
		assert.Zero(t, a.requested(3*time.Minute), "the watch lasts")
		l := w.server.lease(theSlot)
		l.Holder = ""
		w.server.put(&l)
		w.pass(0)
		assert.True(t, a.running("s1"))
	})
}
