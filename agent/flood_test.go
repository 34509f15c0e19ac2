// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"maps"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// outlive starts a holder and a standby, and kills the holder. After that, a test writes the Lease in
// the holder's place.
func (w *world) outlive() (standby *pod, p *ports) {
	s := w.serve(0)
	p = &ports{}
	standby = w.start("b", behind(p)...)
	standby.connect("b")
	w.pass(10 * time.Second)
	require.Equal(w.t, "True StandingBy", standby.ready())
	s.holder.kill()
	return standby, p
}

// flicker kills a holder that has a standby. Then a thief of the holder's rights changes the Lease, and
// changes the Lease back, for a minute.
func (w *world) flicker(change func(l *kube.Lease)) (standby *pod, p *ports) {
	standby, p = w.outlive()
	stable := w.server.lease(theSlot)
	for n := range int(time.Minute / (10 * time.Millisecond)) {
		l := stable
		l.RenewTime, l.Annotations = time.Now(), maps.Clone(l.Annotations)
		if n%2 == 0 {
			change(&l)
		}
		w.server.put(&l)
		w.pass(10 * time.Millisecond)
	}
	return standby, p
}

// Services and nodes follow each change of a pod's readiness.
func TestFlickeringLeaseSeldomChangesReadinessOfStandby(t *testing.T) {
	if testing.Short() {
		t.Skip("slow with the race detector")
	}
	for name, change := range map[string]func(l *kube.Lease){
		"successor": func(l *kube.Lease) { l.Annotations[api.LeavingAnnotation] = l.Annotations[api.HoldAnnotation] + " b_u" },
		"workload":  func(l *kube.Lease) { l.Annotations[api.WorkloadAnnotation] = "Deployment/other" },
		"holder":    func(l *kube.Lease) { l.Holder = "" },
		"serving":   func(l *kube.Lease) { delete(l.Annotations, api.ServingAnnotation) },
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			b, _ := w.flicker(change)
			assert.LessOrEqual(t, len(b.readiness()), 32)
			w.pass(10 * time.Second)
			assert.Equal(t, "True StandingBy", b.ready(), "the last change is written")
		}))
	}
}

// An address in the Lease can be the address of a host outside of the cluster.
func TestFlickeringAddressSeldomMakesStandbyConnect(t *testing.T) {
	if testing.Short() {
		t.Skip("slow with the race detector")
	}
	simulate(t, func(w *world) {
		_, p := w.flicker(func(l *kube.Lease) { l.Annotations[api.AddressAnnotation] = "10.9.9.9" })
		assert.LessOrEqual(t, p.asked, 72)
		asked := p.asked
		w.pass(time.Minute)
		assert.InDelta(t, asked, p.asked, 1, "the last address answers")
	})
}

// requested lets the time d pass, and returns the number of the agent's requests for Leases in
// that time.
func (p *pod) requested(d time.Duration) int {
	before := p.sent("get", "put", "watch")
	p.world.pass(d)
	return p.sent("get", "put", "watch") - before
}

func TestAgentBoundsItsRequestsDuringEveryFault(t *testing.T) {
	if testing.Short() {
		t.Skip("slow with the race detector")
	}
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
				t.Run(name+", "+duration.String()+", held by "+holder, simulated(func(t *testing.T, w *world) {
					w.server.put(&kube.Lease{Name: theSlot, Holder: holder, DurationSeconds: int(duration.Seconds())})
					a := w.start("a", func(c *Config) { c.LeaseDuration = duration })
					a.link.set(weather)
					a.connect("s1")
					w.pass(time.Minute)
					for range 3 {
						assert.LessOrEqual(t, a.requested(time.Minute), elector.PerMinute+elector.Burst)
					}
				}))
			}
		}
	}
}

func TestHolderBoundsItsRequestsDespiteConflictingWrites(t *testing.T) {
	simulate(t, func(w *world) {
		a := w.hold()
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
		assert.LessOrEqual(t, a.requested(time.Minute), elector.PerMinute+elector.Burst)
	})
}
