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
