// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/leave"
	"github.com/metaparticle-io/metaparticle/agent/status"
	"github.com/metaparticle-io/metaparticle/api"
)

// The function "behind" adds the old revision and the changes of [lingering] to the given changes.
func behind(p *ports, change ...func(c *Config)) []func(c *Config) {
	return append([]func(c *Config){of(oldRevision), lingering(p)}, change...)
}

// service has a holder, and the standbys in the holder's Service. Each standby forwards its
// ports to the holder.
type service struct {
	*world
	holder *pod
	// The field "others" has the standbys. The field "ports" has the ports of every pod.
	others []*pod
	ports  map[*pod]*ports
}

// serve starts a holder and the given number of standbys, and lets the holder serve for
// [api.TurnRest].
func (w *world) serve(standbys int, change ...func(c *Config)) *service {
	w.free(theSlot, nextLease)
	s := &service{world: w, ports: map[*pod]*ports{}}
	start := func(name string, shim gate.ShimID) *pod {
		p := &ports{}
		made := w.start(name, behind(p, change...)...)
		made.connect(shim)
		s.ports[made] = p
		return made
	}
	s.holder = start("a", "s1")
	w.within(time.Second, "the child runs", func() bool { return s.holder.running("s1") })
	for i := range standbys {
		s.others = append(s.others, start(string(rune('b'+i)), gate.ShimID(rune('b'+i))))
	}
	w.pass(api.TurnRest + time.Second)
	return s
}

// follower waits until the holder names a successor. The function returns the successor and
// another standby.
func (s *service) follower() (next, other *pod) {
	s.t.Helper()
	s.within(time.Second, "a standby follows", func() bool {
		for i, p := range s.others {
			if p.ready() == "False FollowsTheHolder" {
				next, other = p, s.others[(i+1)%len(s.others)]
			}
		}
		return next != nil
	})
	return next, other
}

// asksToStop makes the holder's shim report a stop signal of the kubelet.
func (s *service) asksToStop() {
	s.holder.gates.report("s1", func(r *gate.Report) { r.Stopping = true })
}

// delay returns how long the holder's last grant lets the shim hold back a stop signal.
func (s *service) delay() time.Duration {
	given := s.holder.gates.given()
	return given[len(given)-1].StopDelay
}

func TestYieldingHolderLeavesItsServicesBeforeItStops(t *testing.T) {
	simulate(t, func(w *world) {
		s := w.serve(2)
		s.holder.agent.Yield()
		w.within(200*time.Millisecond, "the holder is out", func() bool { return s.holder.ready() == "False Leaving" })
		next, other := s.follower()
		w.pass(endpointDelay - 150*time.Millisecond)
		assert.True(t, s.holder.running("s1"), "the application serves for the endpoint delay")
		_, target := s.ports[next].state()
		assert.Equal(t, s.holder.config.PodIP, target, "late connections are forwarded")
		w.within(300*time.Millisecond, "the standbys hold", func() bool { _, target = s.ports[other].state(); return target == "" })
		assert.True(t, s.holder.running("s1"), "connections are held before the application stops")
		w.within(leave.Passing+20*time.Millisecond, "the application stops", func() bool { return !s.holder.running("s1") })

		w.within(time.Second, "the named standby holds", func() bool { return next.running(next.shimOf()) })
		w.pass(time.Second)
		assert.Equal(t, "True Holding", next.ready())
		assert.Equal(t, []string{"True", "False", "True"}, next.readiness(), "not Ready until its child serves")
		assert.Equal(t, []string{"True"}, other.readiness(), "throughout")
		w.pass(status.WordsDelay)
		assert.Equal(t, "True StandingBy", s.holder.ready())
		open, target := s.ports[s.holder].state()
		assert.True(t, open)
		assert.Equal(t, next.config.PodIP, target)
	})
}

// A node may program its rules late, for example because it has little processor time. Until then the
// node sends connections to the successor's forwarder, which passes them on to the holder. So the
// holder must serve until then.
func TestHolderServesWhileConnectionsReachTheSuccessor(t *testing.T) {
	const late = time.Second
	simulate(t, func(w *world) {
		s := w.serve(2)
		s.holder.agent.Yield()
		next, other := s.follower()
		for end := time.Now().Add(endpointDelay + late); time.Now().Before(end); w.pass(50 * time.Millisecond) {
			s.ports[next].connect()
		}
		last := time.Now()
		w.within(endpointDelay, "the application stops", func() bool {
			if _, target := s.ports[next].state(); s.holder.running("s1") && time.Since(last) < endpointDelay/2-100*time.Millisecond {
				assert.Equal(t, s.holder.config.PodIP, target)
			}
			return !s.holder.running("s1")
		})
		assert.GreaterOrEqual(t, time.Since(last), endpointDelay/2-50*time.Millisecond, "no connection comes in that time")
		assert.LessOrEqual(t, time.Since(last), endpointDelay/2+200*time.Millisecond)
		w.within(time.Second, "the named standby holds", func() bool { return next.running(next.shimOf()) })
		assert.Equal(t, []string{"True"}, other.readiness(), "throughout")
	})
}

// The API server stores late that the successor is not Ready. So the nodes learn late, too.
func TestEndpointDelayBeginsOnceTheSuccessorIsUnready(t *testing.T) {
	const slow = 400 * time.Millisecond
	simulate(t, func(w *world) {
		s := w.serve(2)
		for _, p := range s.others {
			p.link.set(func(l *link) { l.delay = slow })
		}
		s.holder.agent.Yield()
		next, _ := s.follower()
		w.pass(endpointDelay - 100*time.Millisecond)
		assert.True(t, s.holder.running("s1"))
		_, target := s.ports[next].state()
		assert.Equal(t, s.holder.config.PodIP, target, "late connections are forwarded")
		w.within(400*time.Millisecond, "the application stops", func() bool { return !s.holder.running("s1") })
	})
}

// A standby whose watch event is late still forwards to the holder, so the holder waits longer.
func TestHolderServesUntilStandbysLetConnectionsWait(t *testing.T) {
	for name, deaf := range map[string]bool{"each standby hears": false, "one standby is deaf": true} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			s := w.serve(2)
			s.holder.agent.Yield()
			next, other := s.follower()
			w.pass(endpointDelay / 2)
			other.link.set(func(l *link) { l.mute = deaf })
			w.within(endpointDelay, "the successor holds connections", func() bool { _, target := s.ports[next].state(); return target == "" })
			began := time.Now()
			w.within(time.Second, "the application stops", func() bool { return !s.holder.running("s1") })
			took := time.Since(began)
			if deaf {
				assert.InDelta(t, leave.Passing.Seconds(), took.Seconds(), 0.01)
			} else {
				assert.InDelta(t, leave.Accepting.Seconds(), took.Seconds(), 0.01)
			}
		}))
	}
}

// Only three of many standbys offer. A successor that a person has named must be among them, because
// the holder waits only for a successor that has made an offer.
func TestNamedSuccessorIsAlwaysAmongTheAnswers(t *testing.T) {
	simulate(t, func(w *world) {
		s := w.serve(9)
		named := s.others[8]
		yield := api.Yield{Hold: s.holder.gates.hold("s1"), Successor: named.identity()}
		w.annotate(theSlot, api.YieldAnnotation, yield.String())
		w.within(time.Second, "the standby follows", func() bool { return named.ready() == "False FollowsTheHolder" })
		assert.True(t, w.words().Of(named.identity()))
		for end := time.Now().Add(endpointDelay + time.Second); time.Now().Before(end); w.pass(50 * time.Millisecond) {
			s.ports[named].connect()
		}
		assert.True(t, s.holder.running("s1"), "connections still reach the successor")
	})
}

// shimOf returns the pod's only shim.
func (p *pod) shimOf() gate.ShimID {
	p.gates.mu.Lock()
	defer p.gates.mu.Unlock()
	for id := range p.gates.shims {
		return id
	}
	return ""
}

func TestDeletedHolderServesWhileNodesMaySendConnections(t *testing.T) {
	simulate(t, func(w *world) {
		s := w.serve(2)
		assert.Equal(t, gate.Heard, s.delay(), "the shim holds the signal back, even if the agent dies")
		s.holder.delete()
		s.asksToStop()
		next, other := s.follower()
		w.pass(endpointDelay - 50*time.Millisecond)
		assert.NotZero(t, s.delay())
		w.within(200*time.Millisecond, "the signal may go", func() bool { return s.delay() == 0 })
		_, target := s.ports[other].state()
		assert.Empty(t, target, "connections are held")
		assert.Empty(t, s.holder.gates.told(), "the kubelet's signal alone stops the application")
		w.pass(10 * time.Second)
		assert.Equal(t, s.holder.identity(), w.holder(), "the hold goes on as long as the child")
		s.holder.gates.end("s1")
		w.within(100*time.Millisecond, "the named standby holds", func() bool { return next.running(next.shimOf()) })
		assert.Equal(t, []string{"True"}, other.readiness(), "throughout")
	})
}

func TestStopSignalComesSoonIfHolderCannotLeave(t *testing.T) {
	for name, c := range map[string]struct {
		standbys int
		change   func(s *service)
		within   time.Duration
	}{
		"the pod is not deleted": {2, func(*service) {}, 50 * time.Millisecond},
		"no standby":             {0, func(s *service) { s.holder.delete() }, leave.Answers + 50*time.Millisecond},
		"no standby, as enroll knows": {0, func(s *service) {
			s.annotate(nextLease, api.AloneAnnotation, "true")
			s.pass(10 * time.Millisecond)
			s.holder.delete()
		}, 50 * time.Millisecond},
		"the grace is of one second": {2, func(s *service) {
			s.holder.delete()
			s.holder.link.set(func(l *link) { l.graceEnds = time.Now().Add(time.Second) })
		}, 500*time.Millisecond + 50*time.Millisecond},
		"the grace is short": {2, func(s *service) {
			s.holder.delete()
			s.holder.link.set(func(l *link) { l.graceEnds = time.Now().Add(2 * time.Second) })
		}, time.Second + 50*time.Millisecond},
		"the API server is away": {2, func(s *service) {
			s.holder.delete()
			s.holder.link.set(func(l *link) { l.refuse = &kube.StatusError{Code: 503} })
		}, leave.Answers + leave.Stored},
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			s := w.serve(c.standbys)
			c.change(s)
			s.asksToStop()
			w.within(c.within, "the signal may go", func() bool { return s.delay() == 0 })
			assert.True(t, s.holder.running("s1"))
		}))
	}
}

func TestTurnBeginsAfterTheHolderLeftItsServices(t *testing.T) {
	simulate(t, func(w *world) {
		s := w.serve(1)
		before := s.holder.readiness()
		b := w.start("n", of(newRevision), lingering(&ports{}))
		b.connect("new")
		w.within(time.Second, "the holder is out", func() bool { return s.holder.ready() == "False Leaving" })
		w.pass(endpointDelay - 150*time.Millisecond)
		assert.True(t, s.holder.running("s1"))
		w.within(time.Second, "the turn begins", func() bool { return b.running("new") })
		w.pass(api.TurnProof + time.Second)
		assert.Equal(t, "True Holding", b.ready())
		assert.Equal(t, []string{"True"}, s.others[0].readiness(), "throughout")
		assert.Equal(t, append(before, "False", "True"), s.holder.readiness(), "Ready again as a standby")
		assert.Equal(t, []string{"False", "True"}, b.readiness())
	})
}

// The kubelet may give an evicted pod no more than two seconds. So while the agent does not
// know the grace, the shim must not hold the stop signal back for long.
func TestUnknownGraceDelaysStopSignalOnlyBriefly(t *testing.T) {
	for name, broken := range map[string]func(l *link){
		"the API server refuses":      func(l *link) { l.refuse = &kube.StatusError{Code: 503} },
		"the API server hangs":        func(l *link) { l.cut = true },
		"the API server answers late": func(l *link) { l.delay = 2500 * time.Millisecond },
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			s := w.serve(2)
			s.holder.delete()
			s.holder.link.set(broken)
			s.asksToStop()
			assert.Equal(t, gate.Heard, s.delay(), "before the signal")
			w.pass(gate.Heard)
			assert.LessOrEqual(t, s.delay(), gate.Heard, "after the signal")
		}))
	}
}

func TestStopSignalDelayNeverExceedsHalfTheGrace(t *testing.T) {
	for name, c := range map[string]struct{ grace, delay time.Duration }{
		"ample": {30 * time.Second, endpointDelay + leave.Patience + 2*leave.Stored},
		"short": {3 * time.Second, 1500 * time.Millisecond},
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			s := w.serve(2)
			s.holder.delete()
			s.holder.link.set(func(l *link) { l.graceEnds = time.Now().Add(c.grace) })
			s.asksToStop()
			w.pass(50 * time.Millisecond)
			assert.InDelta(t, c.delay.Seconds(), s.delay().Seconds(), 0.001)
		}))
	}
}

func TestLostSlotStopsALeavingHolderAtOnce(t *testing.T) {
	simulate(t, func(w *world) {
		s := w.serve(2)
		s.holder.agent.Yield()
		w.within(time.Second, "the holder is out", func() bool { return s.holder.ready() == "False Leaving" })
		l := w.server.lease(theSlot)
		l.Holder = "somebody"
		w.server.put(&l)
		w.within(50*time.Millisecond, "the application stops", func() bool { return !s.holder.running("s1") })
		assert.Equal(t, []time.Duration{0}, s.holder.gates.left())
	})
}

func TestLeavingHolderStopsByItsDeadlineDuringOutage(t *testing.T) {
	simulate(t, func(w *world) {
		s := w.serve(2, func(c *Config) { c.EndpointDelay = 5 * time.Minute })
		s.holder.agent.Yield()
		w.within(time.Second, "the holder is out", func() bool { return s.holder.ready() == "False Leaving" })
		s.holder.link.set(func(l *link) { l.cut = true })
		deadline := s.holder.gates.shim("s1").grant.Deadline
		w.within(20*time.Second, "the application stops", func() bool { return !s.holder.running("s1") })
		assert.Equal(t, deadline, s.holder.gates.shim("s1").grant.Deadline)
		assert.Less(t, w.clock(), deadline)
	})
}

func TestOnlyReadyStandbysOfTheWorkloadAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(c *Config)
		answers bool
	}{
		"of the workload": {func(*Config) {}, true},
		"not Ready":       {func(c *Config) { c.Forwarder.(*ports).busy = assert.AnError }, false},
		"another workload": {func(c *Config) {
			c.Workload = "Deployment/other"
		}, false},
		"without a revision": {func(c *Config) { c.Revision = api.Revision{} }, true},
		"without ports":      {func(c *Config) { c.Ports = nil }, false},
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			s := w.serve(0)
			b := w.start("b", behind(&ports{}, c.change)...)
			b.connect("s2")
			w.pass(10 * time.Second)
			s.holder.agent.Yield()
			w.pass(leave.Answers / 2)
			assert.Equal(t, c.answers, w.words().Of(b.identity()))
		}))
	}
}

func TestHolderIgnoresWordsInItsOwnName(t *testing.T) {
	simulate(t, func(w *world) {
		s := w.serve(2)
		s.holder.agent.Yield()
		id := s.announced()
		w.speak(api.Word{Say: api.Either, Identity: s.holder.identity(), To: id}, api.Word{Say: api.Stays, Identity: "x_u", To: id})
		w.pass(endpointDelay + 10*time.Second)
		assert.Contains(t, []string{s.others[0].identity(), s.others[1].identity()}, w.holder())
	})
}

// A process of the application can make the shim report a stop signal again and again.
func TestRepeatedStopSignalsCauseFewPodReads(t *testing.T) {
	simulate(t, func(w *world) {
		s := w.serve(2)
		var before, after int
		s.holder.link.set(func(l *link) { before = l.podReads })
		for range 300 {
			s.asksToStop()
			w.pass(50 * time.Millisecond)
			s.holder.gates.report("s1", func(r *gate.Report) { r.Stopping = false })
			w.pass(50 * time.Millisecond)
		}
		retry := s.holder.agent.state.self.Budget.Retry
		s.holder.link.set(func(l *link) { after = l.podReads })
		assert.LessOrEqual(t, after-before, int(30*time.Second/retry)+1)
	})
}

// The new holder becomes Ready a moment after its application serves. If the pod must stop within
// that moment, connections must wait as in every other handover.
func TestSuccessorThatStopsSoonLeavesItsServicesToo(t *testing.T) {
	simulate(t, func(w *world) {
		s := w.serve(3)
		s.holder.agent.Yield()
		next, other := s.follower()
		shim := next.shimOf()
		target := func() string {
			_, ip := s.ports[other].state()
			return ip
		}
		w.within(5*time.Second, "the standbys forward to the next holder", func() bool { return next.running(shim) && target() == next.config.PodIP })
		w.pass(status.Calm / 2)
		next.agent.Yield()
		waited := false
		w.within(10*time.Second, "the next holder stops", func() bool {
			waited = waited || target() == "" && next.running(shim)
			return !next.running(shim)
		})
		assert.True(t, waited, "connections wait before the application stops")
	})
}

// The successor's clients connect all the time, so the successor is never prepared. The holder's
// grace ends before the holder's patience.
func TestShortGraceLeavesTimeToHoldConnections(t *testing.T) {
	for _, grace := range []time.Duration{5 * time.Second, 10 * time.Second, 30 * time.Second} {
		t.Run(fmt.Sprint(grace), simulated(func(t *testing.T, w *world) {
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
		}))
	}
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

func TestStatefulSetAndDaemonSetYieldWithoutLeaving(t *testing.T) {
	for _, kind := range []string{"StatefulSet", "DaemonSet"} {
		t.Run(kind, simulated(func(t *testing.T, w *world) {
			s := w.serve(2, func(c *Config) { c.Workload = kind + "/biller" })
			before := s.holder.readiness()
			s.holder.agent.Yield()
			w.within(50*time.Millisecond, "the application stops", func() bool { return !s.holder.running("s1") })
			w.pass(10 * time.Second)
			assert.Equal(t, before, s.holder.readiness())
			for _, p := range s.others {
				assert.NotContains(t, p.ready(), "FollowsTheHolder")
			}
			assert.NotEqual(t, s.holder.identity(), w.holder())
		}))
	}
}

func TestHolderServesConnectionsDuringItsPreStopHook(t *testing.T) {
	simulate(t, func(w *world) {
		s := w.serve(2, func(c *Config) { c.Grace = 2 * time.Minute })
		s.holder.delete()
		s.holder.gates.report("s1", func(r *gate.Report) { r.Stopping, r.PreStop = true, true })
		_, other := s.follower()
		for range 600 {
			w.pass(100 * time.Millisecond)
			_, target := s.ports[other].state()
			require.Equal(t, s.holder.config.PodIP, target, "the application serves while the hook runs")
		}
		require.NotZero(t, s.delay())
		s.holder.gates.report("s1", func(r *gate.Report) { r.PreStop = false })
		w.within(100*time.Millisecond, "the standbys hold", func() bool { _, target := s.ports[other].state(); return target == "" })
		assert.NotZero(t, s.delay(), "connections are held before the application stops")
		w.within(leave.Passing+20*time.Millisecond, "the signal may go", func() bool { return s.delay() == 0 })
		assert.Equal(t, []string{"True"}, other.readiness(), "throughout")
	})
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

// A person pauses the slot while the holder leaves. After the pause only the wish of a dead pod is left.
func TestAnswerBeforeAPauseEndsNoHoldAfterIt(t *testing.T) {
	simulate(t, func(w *world) {
		s := w.serve(2)
		b := w.start("n", of(newRevision), lingering(&ports{}))
		b.connect("new")
		w.within(time.Second, "the holder is out", func() bool { return s.holder.ready() == "False Leaving" })
		w.annotate(theSlot, api.PausedAnnotation, string(api.PauseHold))
		w.pass(10 * time.Second)
		require.True(t, s.holder.running("s1"))
		b.kill()
		w.pass(time.Minute)
		w.annotate(theSlot, api.PausedAnnotation, "")
		w.speak(w.wishes(b.identity())...)
		w.pass(time.Minute)
		assert.Empty(t, s.holder.gates.told())
	})
}

// The wishes of pods that are long dead are still in the next Lease when the holder is deleted.
func TestDeletedHolderNamesNoPodThatDidNotAnswer(t *testing.T) {
	for name, change := range map[string][]func(c *Config){"no ports": nil, "ports": {lingering(&ports{})}} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			a := w.first(append(change, of(oldRevision))...)
			a2 := w.up("a2", append(change, of(oldRevision))...)
			w.pass(api.TurnRest + time.Second)
			w.speak(w.wishes("x_u", "y_u")...)
			w.pass(time.Hour)
			require.Empty(t, a.gates.told())
			require.Subset(t, a.says(), []string{"soon:x_u", "soon:y_u"})
			a.delete()
			a.gates.report("a", func(r *gate.Report) { r.Stopping = true })
			w.pass(3 * time.Second)
			a.gates.end("a")
			took := w.within(5*time.Second, "the other old pod runs", a2.runs)
			assert.Less(t, took, 200*time.Millisecond)
			assert.Empty(t, w.rollout().Turns, "a dead pod has no turn")
		}))
	}
}

// The pod that wishes dies before it answers. Meanwhile the kubelet signals the holder.
func TestDeletedHolderStopsWaitingForAPodThatDied(t *testing.T) {
	simulate(t, func(w *world) {
		s := w.serve(1)
		a := s.holder
		a.link.set(func(l *link) { l.mute, l.hidden = true, nextLease })
		b := w.start("n", of(newRevision), lingering(&ports{}))
		b.connect("new")
		w.within(time.Second, "the pod wishes", func() bool { return w.words().Of(b.identity()) })
		b.kill()
		a.link.set(func(l *link) { l.mute, l.hidden = false, "" })
		w.speak(w.words()...)
		w.announced()
		a.delete()
		a.link.set(func(l *link) { l.graceEnds = time.Now().Add(time.Minute) })
		s.asksToStop()
		w.within(20*time.Second, "the signal may go", func() bool { return s.delay() == 0 })
		a.gates.end("s1")
		w.within(time.Second/2, "the standby runs", func() bool { return s.others[0].running("b") })
		assert.Empty(t, w.rollout().Turns, "a dead pod has no turn")
	})
}
