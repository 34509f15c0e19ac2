// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

// status calls the lock a as a client of metaparticle/sync does, and returns the status.
func (p *pod) status(method string) int {
	code, _ := p.call(method, "/locks/a")
	return code
}

// rustHolder sends the heartbeats of the client in Rust until a GET has another answer than 200.
// The client ignores the answer to each PUT. The result is the number of heartbeats.
func rustHolder(p *pod) (beats int) {
	for beats = 1; p.status(http.MethodGet) == http.StatusOK && beats < 30; beats++ {
		p.status(http.MethodPut)
		after(10 * time.Second)
	}
	return beats
}

func TestSyncClientLearnsOfLossAfterAgentRestart(t *testing.T) {
	for _, away := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			s := newServer(t, "lock.a")
			first, second := start(t, s, "first", "lock/a"), start(t, s, "second", "lock/a")
			require.Equal(t, 200, first.status(http.MethodPut))
			second.stream(http.MethodPost, "/v1/lock/a/holds?wait=10m&stream=true")
			first.kill()
			s.SetAway(away)
			again := start(t, s, "first", "lock/a")
			after(time.Second)
			assert.Equal(t, 1, rustHolder(again), "the Lease names the pod, or the agent cannot see the Lease")
			s.SetAway(false)
			for range 12 {
				after(10 * time.Second)
				holds := again.status(http.MethodPut) == 200
				assert.Equal(t, holds, again.status(http.MethodGet) == 200, "a client may ignore the answer to its PUT")
			}
			assert.True(t, away || holder(s) == "second")
		})
	}
}

// Before the second process, another pod acquires the lock.
func TestSyncClientLearnsOfLossAfterLateRestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		first, second := start(t, s, "first", "lock/a"), start(t, s, "second", "lock/a")
		require.Equal(t, 200, first.status(http.MethodPut))
		second.stream(http.MethodPost, "/v1/lock/a/holds?wait=10m&stream=true")
		first.kill()
		after(time.Minute)
		require.Equal(t, "second", holder(s))
		again, _ := beginWith(t, s, "first", "lock/a", func(c *Config) { c.Restarted = true })
		assert.Equal(t, 1, rustHolder(again))
		after(time.Minute)
		assert.LessOrEqual(t, rustHolder(again), 3, "a client that was frozen learns by its second heartbeat")
	})
}

// While the client in Rust waits, this client sends a PUT only after a GET with the answer 200.
func TestWaitingSyncClientGetsLockAfterAgentRestart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		first, second := start(t, s, "first", "lock/a"), start(t, s, "second", "lock/a")
		require.Equal(t, 200, first.status(http.MethodPut))
		require.Equal(t, 409, second.status(http.MethodPut))
		second.kill()
		again, _ := beginWith(t, s, "second", "lock/a", func(c *Config) { c.Restarted = true })
		first.kill()
		waits := time.Duration(0)
		for holder(s) != "second" && waits < 5*time.Minute {
			after(10 * time.Second)
			waits += 10 * time.Second
			if again.status(http.MethodGet) == 200 {
				again.status(http.MethodPut)
			}
		}
		assert.LessOrEqual(t, waits, budget.Duration+2*syncTells+10*time.Second)
		assert.Equal(t, 200, again.status(http.MethodGet))
	})
}

func TestFirstAgentProcessReportsNoLossBeforeHold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		first, second := start(t, s, "first", "lock/a"), start(t, s, "second", "lock/a")
		require.Equal(t, 200, first.status(http.MethodPut))
		for range 12 {
			assert.Equal(t, 200, second.status(http.MethodGet))
			assert.Equal(t, 409, second.status(http.MethodPut))
			assert.Equal(t, 200, first.status(http.MethodPut))
			assert.Equal(t, 200, first.status(http.MethodGet))
			after(10 * time.Second)
		}
	})
}

// Two clients in one pod send a PUT at once. The first PUT gets a hold that is too short, and the second
// PUT comes after a renewal of that hold.
func TestHoldOfAnotherSyncCallContinues(t *testing.T) {
	for _, told := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			s := newServer(t, "lock.a")
			p, a := beginWith(t, s, "first", "lock/a", func(*Config) {})
			k := calls{a.keepers[0]}
			o := k.bidFor(t.Context(), &bid{now: true, every: defaultBeats, anyProgram: true}, 0)
			require.Nil(t, o.problem)
			if told {
				require.Equal(t, 200, p.status(http.MethodPut))
			}
			retract(k, o.hold)
			after(time.Second)
			assert.Equal(t, told, holder(s) == "first")
		})
	}
}

// The server is away for a while, so the hold becomes too short, and then good again. The next loss
// counts as new, whether the client notices the renewal by a GET or a PUT.
func TestSyncClientLearnsOfEachLoss(t *testing.T) {
	const short = 15 * time.Second // after this time without renewals the hold is too short
	for _, notices := range []string{http.MethodGet, http.MethodPut} {
		bubble(t, func(t *testing.T) {
			s := newServer(t, "lock.a")
			p := start(t, s, "first", "lock/a")
			require.Equal(t, 200, p.status(http.MethodPut))
			s.SetAway(true)
			after(short)
			require.Equal(t, 404, p.status(http.MethodGet))
			s.SetAway(false)
			after(5 * time.Second)
			require.Equal(t, 200, p.status(notices))
			s.SetAway(true)
			after(short)
			if notices == http.MethodPut {
				require.Equal(t, 409, p.status(http.MethodPut))
			}
			after(syncTells)
			assert.Equal(t, 404, p.status(http.MethodGet))
		})
	}
}

// A client that has no hold waits for the lock, and sends a PUT only after a GET with the answer 200.
func TestOutageIsNoLossForWaitingSyncClient(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		p := start(t, s, "first", "lock/a")
		require.Equal(t, 200, p.status(http.MethodGet))
		s.SetAway(true)
		after(10 * time.Minute)
		sent, began := s.count(), time.Now()
		assert.Equal(t, 200, p.status(http.MethodGet))
		assert.Equal(t, sent, s.count())
		assert.Zero(t, time.Since(began), "the call waits for no answer of the server")
	})
}

// The client got its hold before the first GET, so this process has looked at no Lease for a GET.
func TestGetAfterALossAwaitsNoServer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		p := start(t, s, "first", "lock/a")
		require.Equal(t, 200, p.status(http.MethodPut))
		s.SetAway(true)
		after(time.Minute)
		began := time.Now()
		assert.Equal(t, 404, p.status(http.MethodGet))
		assert.Zero(t, time.Since(began))
	})
}

// The client in Rust ignores the answers to its heartbeats. While that client is frozen, another
// program of its pod gets the lock by the paths under /v1.
func TestSyncClientLearnsOfLossToAnotherProgram(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, newServer(t, "lock.a"), "first", "lock/a")
		require.Equal(t, 200, p.status(http.MethodPut))
		after(time.Minute)
		p.hold("?wait=5m&heartbeat=5m")
		assert.Equal(t, 1, rustHolder(p))
		after(syncTells)
		assert.Equal(t, 200, p.status(http.MethodGet), "a client that waits may bid again")
	})
}

func TestSyncClientNeverGetsHoldOfAnotherProgram(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, newServer(t, "lock.a"), "first", "lock/a")
		number := p.hold("?heartbeat=10s")
		for range 3 {
			after(4 * time.Second)
			began := time.Now()
			assert.Equal(t, 409, p.status(http.MethodPut))
			assert.Less(t, time.Since(began), time.Second, "the call does not wait for the end of the hold")
			assert.Equal(t, 200, p.status(http.MethodGet), "no client has lost the lock")
		}
		after(budget.Deadline())
		code, _ := p.call(http.MethodPut, "/v1/lock/a/holds/"+number)
		assert.Equal(t, http.StatusGone, code, "a call of the other protocol is no heartbeat")
	})
}

// A program that starts after the acquisition learns of the hold by its first call.
func TestRestartedSyncClientDiesWithItsLostHold(t *testing.T) {
	for _, method := range []string{http.MethodPut, http.MethodGet} {
		t.Run(method, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newServer(t, "lock.a")
				p, g := startLeashed(t, s, "first", "lock/a")
				require.Equal(t, 200, p.status(http.MethodPut))
				after(9 * time.Second)
				g.restart()
				require.Equal(t, 200, p.status(method), "the pod has not lost the lock")
				s.SetAway(true)
				after(budget.Deadline() + time.Second)
				assert.False(t, g.runs())
			})
		})
	}
}

func TestSyncCallAwaitsRenewalOnlyBriefly(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		p, g := startLeashed(t, s, "first", "lock/a")
		require.Equal(t, 200, p.status(http.MethodPut))
		s.SetAway(true)
		g.reports <- gate.Report{Shim: "shim", Container: "app", Phase: gate.Running, Hold: g.last().Hold, Connected: true, Leap: 1}
		synctest.Wait()
		for method, status := range map[string]int{http.MethodPut: 409, http.MethodGet: 404} {
			began := time.Now()
			assert.Equal(t, status, p.status(method))
			assert.Less(t, time.Since(began), patienceOf(budget)+time.Second)
		}
	})
}
