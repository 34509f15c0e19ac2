// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
)

// budget divides the lease duration of the tests: 30 s.
var budget, _ = api.NewBudget(api.DefaultLeaseDuration)

// holder returns the name of the pod that holds the lock; empty for none.
func holder(s *server) string { return api.PodOf(s.Lease("lock.a").Holder) }

func TestClosingHoldStreamStopsRenewalsWithoutReleasingSlot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		first, second := start(t, s, "first", "lock/a"), start(t, s, "second", "lock/a")
		stream := first.stream(http.MethodPost, "/v1/lock/a/holds?stream=true")
		<-time.After(time.Minute)
		assert.Equal(t, []string{"held"}, stream.states())
		waits := second.stream(http.MethodPost, "/v1/lock/a/holds?stream=true&wait=1h")
		<-time.After(time.Second)
		stream.end()
		<-stream.done
		ended, renewed := time.Now(), s.Lease("lock.a").RenewTime
		<-time.After(budget.Duration - time.Since(renewed) - time.Second)
		synctest.Wait()
		assert.Equal(t, "first", holder(s), "the end of a connection is no proof")
		assert.Equal(t, renewed, s.Lease("lock.a").RenewTime)
		assert.Empty(t, waits.states())
		<-time.After(2 * time.Second)
		synctest.Wait()
		assert.Equal(t, []string{"held"}, waits.states())
		assert.LessOrEqual(t, time.Since(ended), budget.Duration+time.Second)
	})
}

func TestBidStreamReportsHoldLostAtTheDeadline(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		p := start(t, s, "first", "lock/a")
		stream := p.stream(http.MethodPost, "/v1/lock/a/holds?stream=true")
		<-time.After(time.Second)
		synctest.Wait()
		s.SetAway(true)
		renewed := s.Lease("lock.a").RenewTime // the instant of the last stored write
		last := ""
		for last != "lost" {
			<-time.After(100 * time.Millisecond)
			synctest.Wait()
			states := stream.states()
			last = states[len(states)-1]
			switch since := time.Since(renewed); {
			case since < budget.RenewDeadline-100*time.Millisecond:
				assert.Equal(t, "held", last, since)
			case since > budget.RenewDeadline+100*time.Millisecond && since < budget.Deadline()-100*time.Millisecond:
				assert.Equal(t, "ending", last, since)
			}
			require.LessOrEqual(t, time.Since(renewed), budget.Deadline()+200*time.Millisecond)
		}
		assert.GreaterOrEqual(t, time.Since(renewed), budget.Deadline()-100*time.Millisecond)
		assert.Equal(t, []string{"held", "ending", "lost"}, stream.states())
	})
}

func TestHoldIsUncertainBetweenLeapAndRenewal(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		p := start(t, s, "first", "lock/a")
		number := p.hold("?heartbeat=5m")
		stream := p.stream(http.MethodGet, "/v1/lock/a/holds/"+number)
		<-time.After(7 * time.Second)
		s.SetAway(true)
		p.leap()
		<-time.After(time.Millisecond)
		code, body := p.call(http.MethodPut, "/v1/lock/a/holds/"+number)
		assert.Equal(t, http.StatusOK, code)
		assert.Equal(t, "uncertain", body["state"])
		assert.Zero(t, body["goodForSeconds"])
		s.SetAway(false)
		<-time.After(3 * time.Second)
		code, body = p.call(http.MethodPut, "/v1/lock/a/holds/"+number)
		assert.Equal(t, http.StatusOK, code)
		assert.Equal(t, "held", body["state"])
		assert.Greater(t, body["goodForSeconds"], 10.0)
		synctest.Wait()
		assert.Equal(t, []string{"held", "uncertain", "held"}, stream.states())
	})
}

// Of an agent that was suspended, a heartbeat reaches the loop before the message about the leap.
func TestAnswerJustAfterALeapIsUncertain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		p := start(t, s, "first", "lock/a")
		number := p.hold("?heartbeat=5m")
		stream := p.stream(http.MethodGet, "/v1/lock/a/holds/"+number)
		<-time.After(time.Second)
		before := len(s.Requests("put"))
		p.ahead.Store(int64(7 * time.Second))
		_, body := p.call(http.MethodPut, "/v1/lock/a/holds/"+number)
		assert.Equal(t, "uncertain", body["state"])
		p.leaps <- struct{}{}
		<-time.After(time.Second)
		_, body = p.call(http.MethodPut, "/v1/lock/a/holds/"+number)
		assert.Equal(t, "held", body["state"])
		assert.Equal(t, []string{"held", "uncertain", "held"}, stream.states())
		assert.Len(t, s.Requests("put"), before+1)
	})
}

// No shim freezes the program, so the program can send heartbeats. The program is dead.
func TestLeapNeverReplacesAHeartbeat(t *testing.T) {
	for _, leap := range []time.Duration{9 * time.Second, 11 * time.Second} {
		bubble(t, func(t *testing.T) {
			s := newServer(t, "lock.a")
			p := start(t, s, "first", "lock/a")
			p.hold("?heartbeat=10s")
			began := time.Now()
			after(leap)
			p.leap()
			after(time.Minute)
			assert.LessOrEqual(t, s.Lease("lock.a").RenewTime.Sub(began), 10*time.Second)
		})
	}
}

func TestNewAgentProcessNeverResumesAProgramsHold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		earlier := start(t, s, "first", "lock/a")
		number := earlier.hold("?heartbeat=5m")
		<-time.After(time.Minute)
		earlier.kill()
		synctest.Wait()
		renewed := s.Lease("lock.a").RenewTime
		later := start(t, s, "first", "lock/a")
		code, _ := later.call(http.MethodPut, "/v1/lock/a/holds/"+number)
		assert.Equal(t, http.StatusGone, code)
		began := time.Now()
		later.call(http.MethodGet, "/v1/lock/a") // from now on the agent knows that the Lease names this hold
		code, _ = later.call(http.MethodDelete, "/v1/lock/a/holds/"+number)
		assert.Equal(t, http.StatusNoContent, code)
		after(time.Second)
		assert.Equal(t, "first", holder(s), "the earlier program may work on")
		again := later.hold("?wait=5m")
		assert.NotEqual(t, number, again)
		assert.GreaterOrEqual(t, time.Since(began), budget.Duration, "the Lease expired")
		assert.GreaterOrEqual(t, time.Since(renewed), budget.Duration)
	})
}

func TestHoldOfAWithdrawnBidIsReleased(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		p := start(t, s, "first", "lock/a")
		l := p.stream(http.MethodPost, "/v1/lock/a/holds?wait=1m")
		<-time.After(1500 * time.Microsecond) // the write that acquires the lock is under way
		l.end()
		<-l.done
		<-time.After(time.Second)
		synctest.Wait()
		assert.Empty(t, holder(s))
		assert.NotContains(t, l.text.String(), "held", "the program never learned of a hold")
		p.hold("")
	})
}

func TestEarlierBidOfAPodIsServedFirst(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		p := start(t, s, "first", "lock/a")
		number := p.hold("?heartbeat=5m")
		code, body := p.call(http.MethodPost, "/v1/lock/a/holds")
		assert.Equal(t, http.StatusConflict, code)
		assert.Equal(t, "first", body["holder"])
		second := p.stream(http.MethodPost, "/v1/lock/a/holds?wait=1h&stream=true")
		<-time.After(time.Second)
		third := p.stream(http.MethodPost, "/v1/lock/a/holds?wait=1h&stream=true")
		<-time.After(time.Minute)
		assert.Empty(t, second.states())
		p.call(http.MethodDelete, "/v1/lock/a/holds/"+number)
		<-time.After(time.Second)
		synctest.Wait()
		assert.Equal(t, []string{"held"}, second.states())
		assert.Empty(t, third.states())
		second.end()
		<-time.After(budget.Duration + time.Second)
		synctest.Wait()
		assert.Equal(t, []string{"held"}, third.states())
	})
}

func TestSlotIsReleasedIfAcquisitionGetsNoAnswer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		first, second := start(t, s, "first", "lock/a"), start(t, s, "second", "lock/a")
		s.loses.Store(true)
		code, body := first.call(http.MethodPost, "/v1/lock/a/holds")
		assert.Equal(t, http.StatusServiceUnavailable, code, body)
		s.loses.Store(false)
		<-time.After(10 * time.Second)
		synctest.Wait()
		assert.Empty(t, holder(s), "no program has the hold, so the agent gave the slot back")
		second.hold("")
	})
}

func TestStolenOrRecreatedLeaseEndsTheHoldAtOnce(t *testing.T) {
	for name, edit := range map[string]func(l *kube.Lease){
		"stolen":    func(l *kube.Lease) { l.Holder = "thief" },
		"recreated": func(l *kube.Lease) { l.UID, l.Holder, l.Annotations, l.DurationSeconds = "new", "unknown", nil, 30 },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newServer(t, "lock.a")
				p := start(t, s, "first", "lock/a")
				stream := p.stream(http.MethodPost, holdPath+"?stream=true")
				after(time.Second)
				s.Edit("lock.a", edit)
				after(100 * time.Millisecond)
				<-stream.done
				assert.Equal(t, []string{"held", "lost"}, stream.states())
				lines := stream.all()
				assert.Contains(t, lines[len(lines)-1], `"state":"lost","goodForSeconds":0,"goodUntil":0`)
				began := time.Now()
				p.hold("?wait=5m")
				assert.GreaterOrEqual(t, time.Since(began), 28*time.Second, "another pod may work")
			})
		})
	}
}

// The first program sends heartbeats, and the second one follows the stream of its hold. Once a program
// stops, its hold ends.
func TestSilentProgramsHoldEnds(t *testing.T) {
	for name, supports := range map[string]func(t *testing.T, p *pod, number string){
		"heartbeats": func(t *testing.T, p *pod, number string) {
			for range 20 {
				after(9 * time.Second)
				code, body := p.call(http.MethodPut, holdPath+"/"+number)
				require.Equal(t, http.StatusOK, code, body)
				assert.Equal(t, "held", body["state"])
				assert.Greater(t, body["goodForSeconds"], 10.0)
			}
		},
		"stream": func(t *testing.T, p *pod, number string) {
			follows := p.stream(http.MethodGet, holdPath+"/"+number)
			after(5 * time.Minute)
			assert.Equal(t, []string{"held"}, follows.states())
			follows.end()
			<-follows.done
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newServer(t, "lock.a")
				first, second := start(t, s, "first", "lock/a"), start(t, s, "second", "lock/a")
				number := first.hold("?heartbeat=10s")
				supports(t, first, number)
				after(10*time.Second + budget.Duration + time.Second)
				code, _ := first.call(http.MethodPut, holdPath+"/"+number)
				assert.Equal(t, http.StatusGone, code)
				began := time.Now()
				second.hold("?wait=5m")
				assert.GreaterOrEqual(t, time.Since(began), budget.Duration, "a pod that did not watch before sees no expiry before")
			})
		})
	}
}

func TestYieldAnnotationSetsTheHoldStateToAsked(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		p, other, successor := start(t, s, "first", "lock/a"), start(t, s, "other", "lock/a"), start(t, s, "successor", "lock/a")
		number := p.hold("?heartbeat=5m")
		stream := p.stream(http.MethodGet, "/v1/lock/a/holds/"+number)
		again := p.stream(http.MethodPost, "/v1/lock/a/holds?wait=1h&stream=true")
		waits := other.stream(http.MethodPost, "/v1/lock/a/holds?wait=1h&stream=true")
		named := successor.stream(http.MethodPost, "/v1/lock/a/holds?wait=1h&stream=true")
		<-time.After(time.Second)
		yield := api.Yield{Hold: number, Successor: api.Identity("successor", "u")}
		s.Edit("lock.a", func(l *kube.Lease) { l.Annotations[api.YieldAnnotation] = yield.String() })
		<-time.After(10 * time.Second)
		synctest.Wait()
		assert.Equal(t, []string{"held", "asked"}, stream.states())
		assert.Equal(t, "first", holder(s), "only the program can stop its work")
		p.call(http.MethodDelete, "/v1/lock/a/holds/"+number)
		<-time.After(100 * time.Millisecond)
		synctest.Wait()
		assert.Equal(t, "successor", holder(s))
		puts := s.Requests("put")
		released := puts[slices.IndexFunc(puts, func(r apiserver.Request) bool { return r.Lease.Holder == "" })]
		assert.Equal(t, yield.Successor, released.Lease.Annotations[api.SuccessorAnnotation])
		assert.Equal(t, []string{"held"}, named.states())
		assert.Empty(t, waits.states())
		assert.Empty(t, again.states())
	})
}

// The yield names no successor. So any other pod may come first, also a pod whose watch has ended.
func TestYieldDelaysThePodsOwnNextHold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		p := start(t, s, "first", "lock/a")
		number := p.hold("?heartbeat=5m")
		again := p.stream(http.MethodPost, "/v1/lock/a/holds?wait=1h&stream=true")
		s.Edit("lock.a", func(l *kube.Lease) { l.Annotations[api.YieldAnnotation] = api.Yield{Hold: number}.String() })
		<-time.After(time.Second)
		budget, err := api.NewBudget(api.DefaultLeaseDuration)
		require.NoError(t, err)
		p.call(http.MethodDelete, "/v1/lock/a/holds/"+number)
		<-time.After(budget.Retry)
		synctest.Wait()
		assert.Empty(t, holder(s))
		<-time.After(budget.Retry / 2)
		synctest.Wait()
		assert.Equal(t, "first", holder(s))
		assert.Equal(t, []string{"held"}, again.states())
	})
}

func TestStoppedAgentNeverReleasesSlotsThatProgramsHold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a", "lock.b")
		p := start(t, s, "first", "lock/a,lock/b")
		p.hold("?heartbeat=5m")
		code, body := p.call(http.MethodPost, "/v1/lock/b/holds?heartbeat=5m")
		require.Equal(t, http.StatusCreated, code)
		p.call(http.MethodDelete, "/v1/lock/b/holds/"+body["hold"].(string))
		close(p.stop)
		require.NoError(t, <-p.ended)
		assert.Equal(t, "first", holder(s))
		assert.Empty(t, s.Lease("lock.b").Holder)
		code, body = p.call(http.MethodPost, "/v1/lock/b/holds")
		assert.Equal(t, http.StatusServiceUnavailable, code)
		assert.Equal(t, "Stopping", body["reason"])
		_, body = p.call(http.MethodGet, "/v1/lock/b/holds/0123")
		assert.Equal(t, "Stopping", body["reason"])
	})
}

func TestIdleLocalAPINeverSendsRequests(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		p := start(t, s, "first", "lock/a")
		<-time.After(time.Hour)
		assert.Zero(t, s.count())
		code, _ := p.call(http.MethodGet, "/v1/lock/a")
		assert.Equal(t, http.StatusOK, code)
		for range 100 {
			<-time.After(100 * time.Millisecond)
			p.call(http.MethodGet, "/v1/lock/a")
		}
		assert.Equal(t, 2, s.count(), "one read and one watch serve all calls")
		<-time.After(24 * time.Hour)
		assert.Equal(t, 2, s.count())
	})
}

// A pod has one hold of a claim at most. After a restart of the agent, the program of the earlier hold may
// work on. So another slot that is free does not help the next bid.
func TestOwnEarlierHoldRefusesBidAtOnce(t *testing.T) {
	for claims, path := range map[string]string{
		"semaphore/pool=2": "/v1/semaphore/pool/holds?", "rwlock/c=2": "/v1/rwlock/c/holds?as=reader&",
	} {
		t.Run(claims, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newRWServer(t, "semaphore.pool.0", "semaphore.pool.1")
				first := start(t, s, "first", claims)
				code, body := first.call(http.MethodPost, path+"heartbeat=5m")
				require.Equal(t, http.StatusCreated, code, body)
				first.kill()
				again, began := start(t, s, "first", claims), time.Now()
				code, body = again.call(http.MethodPost, path)
				assert.Equal(t, http.StatusConflict, code, body)
				assert.Equal(t, "first", body["holder"])
				assert.Less(t, time.Since(began), time.Second)
				code, body = again.call(http.MethodPost, path+"wait=1m")
				assert.Equal(t, http.StatusCreated, code, body)
			})
		})
	}
}

// Since the loss of its hold the agent has watched no Lease, and meanwhile the Lease has expired.
func TestForgottenLossNeverRefusesBid(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, newServer(t, "semaphore.pool.0", "semaphore.pool.1"), "first", "semaphore/pool=2")
		code, body := p.call(http.MethodPost, "/v1/semaphore/pool/holds?heartbeat=10s")
		require.Equal(t, http.StatusCreated, code, body)
		<-time.After(time.Hour)
		code, body = p.call(http.MethodPost, "/v1/semaphore/pool/holds")
		assert.Equal(t, http.StatusCreated, code, body)
	})
}

// The API server refuses watches, but answers all reads and writes.
func TestRefusedWatchesDelayAWaitingBidOnlyBriefly(t *testing.T) {
	for _, claim := range []struct{ name, first, then string }{
		{"lock/a", "/v1/lock/a/holds?heartbeat=5m", "/v1/lock/a/holds?heartbeat=5m"},
		{"rwlock/c=1", writePath, readPath}, {"rwlock/c=16", writePath, readPath}, {"rwlock/c=2", readPath, writePath},
	} {
		t.Run(claim.name+claim.then, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newServer(t, append((api.Claim{Kind: api.RWLock, Name: "c", Size: 1}).Slots(api.Workload{}), "lock.a")...)
				s.refusesWatches.Store(true)
				first, next := start(t, s, "first", claim.name), start(t, s, "next", claim.name)
				code, body := first.call(http.MethodPost, claim.first+"&wait=10m")
				require.Equal(t, http.StatusCreated, code, body)
				waits := next.stream(http.MethodPost, claim.then+"&wait=24h")
				after(100 * time.Second)
				number := body["hold"].(string)
				path := "/v1/" + claim.name[:len("lock/a")] + "/holds/"
				if claim.name != "lock/a" {
					path = "/v1/rwlock/c/holds/"
				}
				code, _ = first.call(http.MethodDelete, path+number)
				require.Equal(t, http.StatusNoContent, code)
				began := time.Now()
				select {
				case <-waits.done:
				case <-time.After(23 * time.Hour):
				}
				assert.Less(t, time.Since(began), 15*time.Second+time.Minute)
			})
		})
	}
}

// The Lease of a slot is gone, and enroll does not run. So no writer can acquire all slots.
func TestReadersAcquireSlotsWhileWriterAwaitsMissingLease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newRWServer(t)
		s.Delete(api.RWLockLease("c", 15))
		writer, reader := start(t, s, "writer", "rwlock/c=2"), start(t, s, "reader", "rwlock/c=2")
		writer.stream(http.MethodPost, writePath+"&wait=24h")
		after(time.Second)
		refused := 0
		for range 200 {
			after(3 * time.Second)
			code, body := reader.call(http.MethodPost, readPath)
			if code != http.StatusCreated {
				refused++
				continue
			}
			reader.call(http.MethodDelete, "/v1/rwlock/c/holds/"+body["hold"].(string))
		}
		assert.Less(t, refused, 20)
	})
}

// blockable starts the local API of a pod. From the call of block until the call of unblock, the
// loops of that API stand still, as they do while no processor runs them.
func blockable(t *testing.T, s *server) (p *pod, block func() (unblock func())) {
	t.Helper()
	open := make(chan struct{})
	close(open)
	var gate atomic.Value
	gate.Store(open)
	p, _ = beginWith(t, s, "blocked", "lock/a", func(c *Config) {
		clock := c.Clock
		c.Clock = func() time.Duration {
			<-gate.Load().(chan struct{})
			return clock()
		}
	})
	return p, func() func() {
		closed := make(chan struct{})
		gate.Store(closed)
		return func() {
			gate.Store(open)
			close(closed)
		}
	}
}

func TestWithdrawnBidNeverAcquiresSlotDespiteBlockedLoop(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		first := start(t, s, "first", "lock/a")
		number := first.hold("?heartbeat=5m")
		p, block := blockable(t, s)
		waits := p.stream(http.MethodPost, "/v1/lock/a/holds?wait=1h&stream=true")
		<-time.After(time.Minute)
		unblock := block()
		<-time.After(2 * pace.LongestSleep)
		waits.end()
		<-time.After(time.Minute)
		unblock()
		first.call(http.MethodDelete, "/v1/lock/a/holds/"+number)
		<-time.After(5 * time.Minute)
		synctest.Wait()
		assert.Empty(t, s.Lease("lock.a").Holder)
	})
}

func TestEndedProgramStreamStopsRenewalsDespiteBlockedLoop(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		p, block := blockable(t, s)
		number := p.hold("?heartbeat=10s")
		unblock := block()
		follows := p.stream(http.MethodGet, "/v1/lock/a/holds/"+number)
		synctest.Wait()
		follows.end()
		<-time.After(time.Second)
		unblock()
		<-time.After(time.Minute)
		before := s.count()
		<-time.After(time.Minute)
		assert.Equal(t, before, s.count(), "nobody supports the hold, so the agent does not renew")
	})
}

// Each call ends soon after the time that it requests, however long a lease lasts. A wait of 1 ms is shorter
// than one request to the API server.
func TestCallEndsInItsTime(t *testing.T) {
	for name, test := range map[string]struct {
		away   bool // no request succeeds; otherwise, the other pod may hold the locks
		held   bool
		call   string
		status int
	}{
		"free":                           {call: "POST " + holdPath, status: http.StatusCreated},
		"free, short wait":               {call: "POST " + holdPath + "?wait=1ms", status: http.StatusCreated},
		"free, short wait, several":      {call: "POST " + both + "&wait=1ms", status: http.StatusCreated},
		"held":                           {held: true, call: "POST " + holdPath, status: http.StatusConflict},
		"held, wait":                     {held: true, call: "POST " + holdPath + "?wait=1s", status: http.StatusConflict},
		"held, short wait":               {held: true, call: "POST " + holdPath + "?wait=1ms", status: http.StatusConflict},
		"held, short wait, several":      {held: true, call: "POST " + both + "&wait=1ms", status: http.StatusConflict},
		"outage":                         {away: true, call: "POST " + holdPath, status: http.StatusServiceUnavailable},
		"outage, look":                   {away: true, call: "GET /v1/lock/a", status: http.StatusServiceUnavailable},
		"outage, short wait":             {away: true, call: "POST " + holdPath + "?wait=1ms", status: http.StatusServiceUnavailable},
		"outage, short wait, two claims": {away: true, call: "POST " + both + "&wait=1ms", status: http.StatusServiceUnavailable},
	} {
		for _, d := range []time.Duration{10 * time.Second, 30 * time.Second, time.Hour} {
			t.Run(name+" "+d.String(), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					s := newServer(t, "lock.a", "lock.b")
					set := func(c *Config) { c.LeaseDuration = d }
					one, _ := beginWith(t, s, "one", "lock/a,lock/b", set)
					two, _ := beginWith(t, s, "two", "lock/a,lock/b", set)
					if test.held {
						code, body := one.call(http.MethodPost, both+"&heartbeat=5m")
						require.Equal(t, http.StatusCreated, code, body)
					}
					s.SetAway(test.away)
					method, path, _ := strings.Cut(test.call, " ")
					began, most := time.Now(), 3*time.Second
					if test.away {
						most = min(d/3, mostPatience)
					}
					code, body := two.call(method, path)
					assert.Equal(t, test.status, code, body)
					assert.LessOrEqual(t, time.Since(began), most)
					if test.held {
						assert.Equal(t, "one", body["holder"])
					}
				})
			})
		}
	}
}

// The second lock becomes free at the end of the wait, and the API server stores each write late. The whole
// call takes no longer than a call without a wait.
func TestShortWaitBoundsCallForSeveralClaims(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, one, two := startPair(t)
		s.slow(2 * time.Second)
		began := time.Now()
		code, body := one.call(http.MethodPost, both+"&wait=1ms")
		require.Equal(t, http.StatusCreated, code, body)
		assert.Less(t, time.Since(began), patienceOf(budget))
		s.slow(0)
		for _, h := range holdsIn(body) {
			one.call(http.MethodDelete, "/v1/"+h["claim"].(string)+"/holds/"+h["hold"].(string))
		}
		after(time.Minute)
		s.slow(6 * time.Second) // no write has an answer in time
		began = time.Now()
		code, body = one.call(http.MethodPost, both+"&wait=1ms")
		assert.Equal(t, http.StatusServiceUnavailable, code, body)
		assert.LessOrEqual(t, time.Since(began), patienceOf(budget))
		s.slow(0)
		code, body = two.call(http.MethodPost, both+"&wait=1m")
		assert.Equal(t, http.StatusCreated, code, body)
	})
}
