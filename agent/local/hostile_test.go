// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Package url drops the malformed parts of a query. Without its fence, a write would take effect.
func TestCallWithAnAmbiguousQueryIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, newServer(t, "lock.a"), "first", "lock/a,variable/hits")
		number := p.hold("?heartbeat=5m")
		for _, call := range [][2]string{
			{http.MethodPut, hits + "?type=text;fence=" + number},
			{http.MethodPut, hits + "?fence=%zz" + number},
			{http.MethodPut, hits + "?fence=" + number + "&fence=0"},
			{http.MethodPost, hits + "/add?by=1&by=2"},
			{http.MethodPost, hits + "/add?by="},
			{http.MethodPost, hits + "/add?by=%31%"},
			{http.MethodPost, "/v1/lock/a/holds?wait=1s&wait=2s"},
			{http.MethodPost, "/v1/lock/a/holds?wait=1s;stream=true"},
			{http.MethodPost, "/v1/holds?claims=lock/a&claims=lock/b"},
			{http.MethodPut, hits + "?type=text&Fence=" + number},
			{http.MethodPost, hits + "/add?By=2"},
		} {
			code, body := p.send(call[0], call[1], "1")
			assert.Equal(t, http.StatusBadRequest, code, call)
			assert.Equal(t, "BadRequest", body["reason"], call)
		}
		_, body := p.send(http.MethodGet, hits, "")
		assert.Equal(t, "none", body["type"])
	})
}

// The answer Stopping would order the program to stop its work.
func TestHalfClosedFollowerIsNotToldToStop(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p, a := startFor(t, newServer(t, "lock.a"), "first", 0)
		number := p.hold("?heartbeat=5m")
		resume := stall(a.keepers[0])
		defer resume()
		ctx, end := context.WithCancel(t.Context())
		end()
		w := httptest.NewRecorder()
		p.handler.ServeHTTP(w, request(ctx, http.MethodGet, "/v1/lock/a/holds/"+number))
		var body map[string]any
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body))
		assert.Equal(t, "Unavailable", body["reason"])
	})
}

// The answer Lost would order the program to stop its work, although the pod still has the hold.
func TestHalfClosedFencedWriteIsNotToldLost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, newServer(t, "lock.a"), "first", "lock/a,variable/hits")
		number := p.hold("?heartbeat=5m")
		for range 20 {
			ctx, end := context.WithCancel(t.Context())
			end()
			w := httptest.NewRecorder()
			p.handler.ServeHTTP(w, request(ctx, http.MethodPost, hits+"/add?fence="+number))
			var body map[string]any
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body))
			assert.NotEqual(t, "Lost", body["reason"])
		}
	})
}

// The write of a program may wait for the API server while another program of the pod gets the lock.
func TestWriteNeverHasFenceOfNextHold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p, a := startFor(t, newServer(t, "lock.a"), "first", 0)
		number := p.hold("?heartbeat=5m")
		of := calls{a.keepers[0]}
		fence, refusal := of.fence(t.Context(), number)
		assert.Empty(t, refusal)
		assert.Equal(t, "lock.a", fence.Lock)
		p.call(http.MethodDelete, "/v1/lock/a/holds/"+number)
		_, refusal = of.fence(t.Context(), number)
		assert.Equal(t, LostHold, refusal)
		after(time.Second)
		next := p.hold("?heartbeat=5m")
		_, refusal = of.fence(t.Context(), number)
		assert.Equal(t, LostHold, refusal)
		later, refusal := of.fence(t.Context(), next)
		assert.Empty(t, refusal)
		assert.Greater(t, later.Token, fence.Token)
	})
}

func TestTooManyCallsForAVariableAreRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, newServer(t), "first", "variable/hits")
		var watches []*lines
		for range 256 {
			watches = append(watches, p.stream(http.MethodGet, hits+"?watch=true"))
		}
		after(time.Second)
		code, body := p.send(http.MethodGet, hits, "")
		assert.Equal(t, http.StatusTooManyRequests, code)
		assert.Equal(t, "TooManyCalls", body["reason"])
		watches[0].end()
		<-watches[0].done
		code, _ = p.send(http.MethodGet, hits, "")
		assert.Equal(t, http.StatusOK, code)
	})
}
