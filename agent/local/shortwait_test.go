// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

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
