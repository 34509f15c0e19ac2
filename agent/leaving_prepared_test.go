// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/leave"
	"github.com/metaparticle-io/metaparticle/api"
)

// The successor's clients connect all the time, so the successor is never prepared. The holder's
// grace ends before the holder's patience.
func TestShortGraceLeavesTimeToHoldConnections(t *testing.T) {
	for _, grace := range []time.Duration{5 * time.Second, 10 * time.Second, 30 * time.Second} {
		t.Run(fmt.Sprint(grace), func(t *testing.T) {
			simulate(t, func(w *world) {
				s := w.serve(2)
				s.holder.delete()
				began := time.Now()
				s.holder.link.set(func(l *link) { l.graceEnds = began.Add(grace) })
				s.asksToStop()
				next, other := s.follower()
				var held time.Time
				for s.delay() != 0 && time.Since(began) < grace {
					s.ports[next].connect()
					w.pass(time.Millisecond)
					if _, target := s.ports[other].state(); target == "" && held.IsZero() {
						held = time.Now()
					}
				}
				require.False(t, held.IsZero(), "connections wait before the application stops")
				assert.GreaterOrEqual(t, time.Since(held), leave.Accepting-time.Millisecond)
				assert.LessOrEqual(t, time.Since(began), grace/2+20*time.Millisecond)
			})
		})
	}
}

// The successor tells that it is prepared, and the API server refuses this write for a moment.
func TestPreparedStandbyRepeatsAFailedWrite(t *testing.T) {
	simulate(t, func(w *world) {
		s := w.serve(2)
		s.holder.agent.Yield()
		next, _ := s.follower()
		w.pass(endpointDelay - 200*time.Millisecond)
		next.link.set(func(l *link) { l.unwritten = &kube.StatusError{Code: 500} })
		w.pass(400 * time.Millisecond)
		next.link.set(func(l *link) { l.unwritten = nil })
		w.within(leave.Patience/2, "the application stops", func() bool { return !s.holder.running("s1") })
	})
}

// A thief of the rights of an agent changes the next Lease all the time, and the leave never ends.
func TestPreparedStandbyBoundsItsAttempts(t *testing.T) {
	simulate(t, func(w *world) {
		s := w.serve(2, func(c *Config) { c.EndpointDelay = 10 * time.Second })
		s.holder.agent.Yield()
		next, _ := s.follower()
		s.holder.kill()
		next.link.set(func(l *link) { l.unwritten = &kube.StatusError{Code: 409} })
		sent := 0
		for range 60 {
			l := w.server.lease(theSlot)
			l.RenewTime = time.Now()
			w.server.put(&l)
			sent += next.requested(5 * time.Second)
		}
		assert.Positive(t, sent)
		assert.LessOrEqual(t, sent, 2*mostTries*mostTries)
	})
}

// Only a few of many standbys offer. The others have nothing to tell the holder at the stop.
func TestStandbysWithoutAnOfferTellNothing(t *testing.T) {
	simulate(t, func(w *world) {
		s := w.serve(100)
		count := func() (reads int) {
			for _, p := range s.others {
				p.link.set(func(l *link) { reads += l.gets })
			}
			return reads
		}
		before := count()
		s.holder.agent.Yield()
		s.follower()
		w.pass(endpointDelay / 2)
		offered := count()
		assert.LessOrEqual(t, offered-before, 100+api.MostOffers*mostTries)
		w.within(endpointDelay, "the application stops", func() bool { return !s.holder.running("s1") })
		assert.LessOrEqual(t, count()-offered, api.MostOffers*mostTries, "only pods with an offer tell")
	})
}

// While the holder leaves, its application fails the readiness probe for a moment. In that moment a
// standby is prepared. Later, that standby hears of the stop late.
func TestEarlyPreparationNeverShortensTheLeave(t *testing.T) {
	simulate(t, func(w *world) {
		app := newPatient()
		s := w.serve(2, app.probed("readiness"), func(c *Config) {
			r := c.Probes["app"].Readiness
			r.PeriodSeconds, r.FailureThreshold, c.EndpointDelay = 1, 1, 10*time.Second
		})
		s.holder.agent.Yield()
		next, other := s.follower()
		target := func() string { _, target := s.ports[other].state(); return target }
		app.be(true, "readiness")
		w.within(3*time.Second, "the standby holds connections", func() bool { s.holder.kubelet("readiness"); return target() == "" })
		w.pass(100 * time.Millisecond)
		app.be(false, "readiness")
		w.within(3*time.Second, "the standby forwards again", func() bool { s.holder.kubelet("readiness"); return target() != "" })
		other.link.set(func(l *link) { l.mute = true })
		w.within(15*time.Second, "the successor holds connections", func() bool { _, target := s.ports[next].state(); return target == "" })
		require.True(t, s.holder.running("s1"))
		took := w.within(time.Second, "the application stops", func() bool { return !s.holder.running("s1") })
		assert.InDelta(t, leave.Passing.Seconds(), took.Seconds(), 0.01)
	})
}

// A holder of an earlier version takes the offer of a prepared pod for an unknown text, which ends the ask of the
// newer revision. Then that holder gives up its leave.
func TestStandbyTellsNothingToEarlierAgentVersion(t *testing.T) {
	for name, end := range map[string]string{"an earlier version": "", "this version": api.Awaits} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(w *world) {
				b, _ := w.outlive()
				announce := func(says string, change func(annotations map[string]string)) {
					l := w.server.lease(theSlot)
					l.RenewTime = time.Now()
					l.Annotations[api.LeavingAnnotation] = l.Annotations[api.HoldAnnotation] + end + " " + says
					change(l.Annotations)
					w.server.put(&l)
					w.pass(200 * time.Millisecond)
				}
				offers := func() api.Offers { return api.ParseOffers(w.server.lease(nextLease).Annotations[api.OffersAnnotation]) }
				announce(api.LeavingSoon, func(map[string]string) {})
				require.True(t, offers().Of(b.identity()))
				announce("n_u", func(annotations map[string]string) { delete(annotations, api.ServingAnnotation) })
				assert.Equal(t, end != "", offers().Pods[0].Prepared)
			})
		})
	}
}

// A deleted standby that forwards hears late that the holder stops.
func TestHolderWaitsForDeletedStandbyThatForwards(t *testing.T) {
	simulate(t, func(w *world) {
		s := w.serve(3, func(c *Config) { c.Forwarder.(*ports).lasts = true })
		d := s.others[2]
		d.delete()
		close(d.stop)
		w.pass(500 * time.Millisecond)
		s.holder.agent.Yield()
		next, _ := s.follower()
		w.pass(endpointDelay / 2)
		_, target := s.ports[d].state()
		require.Equal(t, s.holder.config.PodIP, target)
		d.link.set(func(l *link) { l.mute = true })
		w.within(endpointDelay, "the successor holds connections", func() bool { _, target := s.ports[next].state(); return target == "" })
		took := w.within(time.Second, "the application stops", func() bool { return !s.holder.running("s1") })
		assert.InDelta(t, leave.Passing.Seconds(), took.Seconds(), 0.01)
	})
}
