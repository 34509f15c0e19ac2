// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The wait of a bid is shorter than one request to the API server.

func TestBidWithShortWaitGetsFreeSlot(t *testing.T) {
	for _, path := range []string{holdPath + "?", both + "&"} {
		bubble(t, func(t *testing.T) {
			_, one, two := startPair(t)
			began := time.Now()
			code, body := one.call(http.MethodPost, path+"wait=1ms")
			require.Equal(t, http.StatusCreated, code, body)
			assert.Less(t, time.Since(began), time.Second)
			began = time.Now()
			code, body = two.call(http.MethodPost, path+"wait=1ms")
			assert.Equal(t, http.StatusConflict, code, body)
			assert.Equal(t, "one", body["holder"])
			assert.Less(t, time.Since(began), time.Second)
		})
	}
}

func TestBidWithShortWaitEndsDuringOutage(t *testing.T) {
	for _, path := range []string{holdPath + "?", both + "&"} {
		bubble(t, func(t *testing.T) {
			s, one, _ := startPair(t)
			s.SetAway(true)
			began := time.Now()
			code, body := one.call(http.MethodPost, path+"wait=1ms")
			assert.Equal(t, http.StatusServiceUnavailable, code, body)
			assert.LessOrEqual(t, time.Since(began), mostPatience)
		})
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
