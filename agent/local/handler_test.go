// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestMistakenLocalAPICallIsRefusedWithReason(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, newServer(t, "lock.a"), "first", "lock/a,rwlock/c=2")
		for call, reason := range map[[2]string]string{
			{http.MethodGet, "/v1/lock/b"}:                                  "NotDeclared",
			{http.MethodGet, "/v1/election/a"}:                              "NotDeclared",
			{http.MethodPost, "/v1/lock/b/holds"}:                           "NotDeclared",
			{http.MethodGet, "/v2/lock/a"}:                                  "NoSuchPath",
			{http.MethodPost, "//v1/lock/a/holds"}:                          "NoSuchPath",
			{http.MethodPost, "/v1//lock/a/holds"}:                          "NoSuchPath",
			{http.MethodPost, "/v1/lock/b/../a/holds"}:                      "NoSuchPath",
			{http.MethodGet, "/v1/lock/a/"}:                                 "NoSuchPath",
			{http.MethodPost, "/v1/lock/a/holds?wait=soon"}:                 "BadRequest",
			{http.MethodPost, "/v1/lock/a/holds?wait=-1s"}:                  "BadRequest",
			{http.MethodPost, "/v1/lock/a/holds?heartbeat=1ms"}:             "BadRequest",
			{http.MethodPut, "/v1/lock/a/holds/0123"}:                       "Lost",
			{http.MethodGet, "/v1/lock/a/holds/0123"}:                       "Lost",
			{http.MethodPost, "/locks/a"}:                                   "BadRequest",
			{http.MethodPost, "/v1/lock/a/holds?wait=9999999999999999h"}:    "BadRequest",
			{http.MethodPost, "/v1/lock/a/holds?heartbeat=%00&stream=1"}:    "BadRequest",
			{http.MethodPost, "/v1/rwlock/c/holds"}:                         "BadRequest",
			{http.MethodPost, "/v1/rwlock/c/holds?as="}:                     "BadRequest",
			{http.MethodPost, "/v1/rwlock/c/holds?as=owner"}:                "BadRequest",
			{http.MethodPost, "/v1/lock/a/holds?as=reader"}:                 "BadRequest",
			{http.MethodGet, "/v1/lock/a?watch=yes"}:                        "BadRequest",
			{http.MethodDelete, "/v1/lock/%2e%2e%2fa/holds/0123"}:           "NotDeclared",
			{http.MethodPut, "/v1/lock/a/holds/" + string(make([]byte, 0))}: "NoSuchPath",
		} {
			_, body := p.call(call[0], call[1])
			assert.Equal(t, reason, body["reason"], call)
			assert.NotEmpty(t, body["detail"], call)
		}
	})
}

func TestLocalAPIShowsTheHolderAndItsAddress(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		first, second := start(t, s, "first", "lock/a"), start(t, s, "second", "lock/a")
		slot := func(p *pod) map[string]any {
			code, body := p.call(http.MethodGet, "/v1/lock/a")
			require.Equal(t, http.StatusOK, code)
			return body["slots"].([]any)[0].(map[string]any)
		}
		assert.NotContains(t, slot(second), "holder")
		number := first.hold("?heartbeat=5m")
		<-time.After(10 * time.Second) // the first renewal adds the token to the Lease
		for _, p := range []*pod{first, second} {
			of := slot(p)
			assert.Equal(t, "first", of["holder"])
			assert.Equal(t, "10.0.0.1", of["address"])
			assert.Equal(t, "2", of["fencingToken"])
			assert.NotEmpty(t, of["since"])
		}
		_, body := first.call(http.MethodGet, "/v1/lock/a")
		assert.Equal(t, true, body["held"])
		first.call(http.MethodDelete, "/v1/lock/a/holds/"+number)
		<-time.After(time.Second)
		assert.NotContains(t, slot(second), "holder")

		s.SetAway(true)
		<-time.After(2 * time.Minute)
		code, body := second.call(http.MethodGet, "/v1/lock/a")
		assert.Equal(t, http.StatusServiceUnavailable, code)
		assert.Equal(t, "Unavailable", body["reason"])
	})
}

func TestLocalAPIWatchShowsHolderAndRelease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		first, second := start(t, s, "first", "lock/a"), start(t, s, "second", "lock/a")
		watch := second.stream(http.MethodGet, "/v1/lock/a?watch=true")
		after(4 * time.Minute)
		assert.Len(t, watch.all(), 1, "each state comes only once")
		number := first.hold("?heartbeat=5m")
		after(4 * time.Minute)
		assert.LessOrEqual(t, len(watch.all()), 3, "the first renewal adds the token to the Lease")
		first.call(http.MethodDelete, "/v1/lock/a/holds/"+number)
		<-time.After(time.Second)
		watch.mu.Lock()
		defer watch.mu.Unlock()
		text := watch.text.String()
		assert.Contains(t, text, `"holder":"first"`)
		assert.Contains(t, text[len(text)-80:], `"slots":[{"slot":"lock.a","state":"free"}]`)
	})
}

func TestOnlyOneMetaparticleSyncClientHoldsTheLock(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		first, second := start(t, s, "first", "lock/a"), start(t, s, "second", "lock/a")
		code := func(p *pod, method, path string) int {
			t.Helper()
			code, body := p.call(method, path)
			assert.Equal(t, "Lock", body["kind"])
			assert.Equal(t, "metaparticle.io/v1", body["apiVersion"])
			return code
		}
		assert.Equal(t, 404, code(first, http.MethodGet, "/locks/unknown"))
		assert.Equal(t, 409, code(first, http.MethodPut, "/locks/unknown"))
		assert.Equal(t, 200, code(first, http.MethodGet, "/locks/a"))
		assert.Equal(t, 200, code(first, http.MethodPut, "/locks/a"))
		assert.Equal(t, 409, code(second, http.MethodPut, "/locks/a"))
		assert.Equal(t, 200, code(second, http.MethodGet, "/locks/a"))
		for range 12 {
			<-time.After(10 * time.Second)
			require.Equal(t, 200, code(first, http.MethodPut, "/locks/a"))
		}
		assert.Equal(t, "first", holder(s))

		s.SetAway(true)
		lost := time.Duration(0)
		for began := time.Now(); lost == 0; {
			<-time.After(time.Second)
			if code(first, http.MethodPut, "/locks/a") == 409 {
				lost = time.Since(began)
			}
		}
		assert.LessOrEqual(t, lost, budget.Deadline()-syncGood+time.Second, "an answer 200 is good for 12 s more")
		assert.Equal(t, 404, code(first, http.MethodGet, "/locks/a"), "one client learns of its loss only so")
		s.SetAway(false)
		for tries := 0; code(second, http.MethodPut, "/locks/a") != 200; tries++ {
			<-time.After(5 * time.Second)
			require.Less(t, tries, 10, "the Lease expires")
		}
	})
}

// Package http sends the status 200 for a call without an answer.
func TestCallWhoseAgentStopsGetsNoSuccess(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, newServer(t, "lock.a"), "first", "lock/a,variable/hits")
		number := p.hold("?heartbeat=5m")
		close(p.stop)
		require.NoError(t, <-p.ended)
		for _, call := range [][2]string{
			{http.MethodPut, "/v1/lock/a/holds/" + number},
			{http.MethodDelete, "/v1/lock/a/holds/" + number},
			{http.MethodGet, "/v1/lock/a/holds/" + number},
			{http.MethodPost, "/v1/lock/a/holds"},
			{http.MethodPost, "/v1/holds?claims=lock/a"},
			{http.MethodGet, hits},
			{http.MethodGet, hits + "?watch=true"},
			{http.MethodPut, hits},
			{http.MethodPut, hits + "?fence=" + number},
			{http.MethodPost, hits + "/add"},
		} {
			code, body := p.call(call[0], call[1])
			assert.Equal(t, http.StatusServiceUnavailable, code, call)
			assert.Equal(t, "Stopping", body["reason"], call)
		}
	})
}

func TestCallsAtQueryBoundsAreServed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, newServer(t, "lock.a"), "first", "lock/a")
		for query, code := range map[string]int{
			"wait=24h": 201, "wait=24h0m0.000000001s": 400, "wait=0s": 201, "wait=-1ns": 400, "wait=": 201,
			"heartbeat=1s": 201, "heartbeat=0.999s": 400, "heartbeat=5m": 201, "heartbeat=300.000000001s": 400, "heartbeat=0": 400,
			"stream=false": 201, "stream=": 201, "stream=True": 400, "stream=1": 400,
		} {
			got, body := p.call(http.MethodPost, "/v1/lock/a/holds?"+query)
			assert.Equal(t, code, got, query)
			if got == http.StatusCreated {
				p.call(http.MethodDelete, "/v1/lock/a/holds/"+body["hold"].(string))
			}
		}
		code, _ := p.call(http.MethodGet, "/v1/lock/a?watch=false")
		assert.Equal(t, http.StatusOK, code)
	})
}

func TestAnswersHaveTheirDocumentedMediaTypes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, newServer(t, "lock.a"), "first", "lock/a,variable/hits")
		for path, want := range map[string]string{
			"/v1/lock/a": "application/json", hits: "application/json", "/locks/a": "application/json",
			"/v1/lock/b": "application/problem+json", hits + "?watch=1": "application/problem+json", "/": "application/problem+json",
		} {
			w := httptest.NewRecorder()
			p.handler.ServeHTTP(w, request(t.Context(), http.MethodGet, path))
			assert.Equal(t, want, w.Header().Get("Content-Type"), path)
		}
	})
}
