// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

const waitPath = "/v1/barrier/warm/wait"

var meets = api.Barrier{Name: "warm", Size: 3}

// The constant "soon" bounds the time from the last arrival until the barrier is open, as in the
// tests of package wait.
const soon = api.DefaultLeaseDuration/6 + 5*time.Second

// waiting is a call that waits at the barrier, and its answer.
type waiting struct {
	code   int
	reason any
	state  any
	end    context.CancelFunc
	done   chan struct{}
}

// wait sends a call that waits at the barrier, for at most the time in the query.
func (p *pod) wait(query string) *waiting {
	ctx, end := context.WithCancel(p.t.Context())
	p.t.Cleanup(end)
	c := &waiting{end: end, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		w := httptest.NewRecorder()
		p.handler.ServeHTTP(w, request(ctx, http.MethodPost, waitPath+query))
		body := map[string]any{}
		_ = json.Unmarshal(w.Body.Bytes(), &body) // the answer to a dropped call has no body
		c.code, c.reason, c.state = w.Code, body["reason"], body["state"]
	}()
	return c
}

// The function "last" fails the test if a call ends within the duration d.
func last(t *testing.T, d time.Duration, calls ...*waiting) {
	t.Helper()
	<-time.After(d)
	synctest.Wait()
	for i, c := range calls {
		select {
		case <-c.done:
			require.Fail(t, "the call has ended", "%d: %d %v", i, c.code, c.reason)
		default:
		}
	}
}

// The function "opens" fails the test unless each call reports within the duration d that the
// barrier is open.
func opens(t *testing.T, d time.Duration, calls ...*waiting) {
	t.Helper()
	late := time.After(d)
	for i, c := range calls {
		select {
		case <-c.done:
			require.Equal(t, http.StatusOK, c.code, "%d: %v", i, c.reason)
			require.Equal(t, "open", c.state)
		case <-late:
			require.Fail(t, "the call waits", i)
		}
	}
}

// atBarrier returns an API server with the Leases of the barrier, and a function that starts a pod
// of the run.
func atBarrier(t *testing.T) (*server, func(name string) *pod) {
	s := newServer(t, meets.Leases("run-1")...)
	return s, func(name string) *pod { return start(t, s, name, "barrier/warm=3, lock/a") }
}

// The method "arrived" returns the names of the pods that hold a Lease of the barrier.
func (s *server) arrived() (names []string) {
	for _, lease := range meets.Leases("run-1") {
		if holder := s.Lease(lease).Holder; holder != "" {
			names = append(names, api.PodOf(holder))
		}
	}
	slices.Sort(names)
	return names
}

// docs/reference/compatibility.md: pod/local-api-barrier carried
func TestProgramsOfAJobWaitForEachOther(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, pod := atBarrier(t)
		a, b := pod("a"), pod("b")
		first, second := a.wait("?wait=2h"), b.wait("?wait=2h")
		last(t, time.Hour, first, second)
		assert.Equal(t, []string{"a", "b"}, s.arrived())
		code, body := a.call(http.MethodGet, "/v1/barrier/warm")
		assert.Equal(t, http.StatusOK, code)
		assert.Equal(t, map[string]any{"barrier": "barrier/warm=3", "state": "closed"}, body)
		c := pod("c")
		opens(t, soon, c.wait("?wait=1m"), first, second)
		<-time.After(time.Second) // the programs go on before the pods' releases are stored
		assert.Empty(t, s.arrived(), "each pod releases its Lease")

		opens(t, time.Second, pod("d").wait("?wait=1m"), pod("e").wait(""))
		_, body = pod("f").call(http.MethodGet, "/v1/barrier/warm")
		assert.Equal(t, "open", body["state"])
		<-time.After(time.Minute)
		sent := s.count()
		opens(t, time.Millisecond, a.wait("?wait=1m"), b.wait(""))
		assert.Equal(t, sent, s.count(), "an open barrier needs no request")
		s.Edit(meets.Leases("run-1")[0], func(l *kube.Lease) { delete(l.Annotations, api.OpenedAnnotation) })
		opens(t, time.Millisecond, a.wait("?wait=1m"))
	})
}

func TestConcurrentBarrierCallsShareThePodsArrival(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, pod := atBarrier(t)
		a, b := pod("a"), pod("b")
		all := []*waiting{a.wait("?wait=3h"), a.wait("?wait=3h"), a.wait("?wait=3h"), b.wait("?wait=3h")}
		last(t, time.Hour, all...)
		assert.Equal(t, []string{"a", "b"}, s.arrived())
		all[0].end()
		last(t, time.Hour, all[1:]...)
		assert.Equal(t, []string{"a", "b"}, s.arrived(), "other calls of the pod wait")
		opens(t, soon, append(all[1:], pod("c").wait("?wait=1m"))...)
	})
}

func TestArrivalIsReleasedAfterLastBarrierCallEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, pod := atBarrier(t)
		a, b, c := pod("a"), pod("b"), pod("c")
		first, second := a.wait("?wait=3h"), b.wait("?wait=3h")
		last(t, time.Minute, first, second)
		first.end()
		last(t, countsOn-time.Millisecond, second)
		assert.Equal(t, []string{"a", "b"}, s.arrived(), "the program may repeat its call")
		last(t, time.Second, second)
		assert.Equal(t, []string{"b"}, s.arrived())
		third := c.wait("?wait=3h")
		last(t, time.Hour, second, third)
		sent := s.count()
		opens(t, soon, a.wait("?wait=1m"), second, third)
		assert.Greater(t, s.count(), sent)
	})
}

func TestAgentSendsNoBarrierRequestsWithoutPendingCalls(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, pod := atBarrier(t)
		call := pod("a").wait("?wait=10s")
		<-call.done
		<-time.After(2 * countsOn)
		sent := s.count()
		<-time.After(time.Hour)
		synctest.Wait()
		assert.Equal(t, sent, s.count())
	})
}

// A shell script repeats its call, and sleeps for a second between two calls.
func TestRepeatedBarrierCallsKeepTheSameArrival(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, pod := atBarrier(t)
		a := pod("a")
		lease := ""
		for range 100 {
			call := a.wait("?wait=7s")
			<-call.done
			require.Equal(t, []any{http.StatusConflict, "Closed"}, []any{call.code, call.reason})
			require.Equal(t, []string{"a"}, s.arrived())
			i := slices.IndexFunc(meets.Leases("run-1"), func(name string) bool { return s.Lease(name).Holder != "" })
			held := meets.Leases("run-1")[i]
			if lease == "" {
				lease = held
			}
			require.Equal(t, lease, held)
			require.Equal(t, 1, s.Lease(lease).Transitions)
			<-time.After(time.Second)
		}
		opens(t, soon, pod("b").wait("?wait=1m"), pod("c").wait("?wait=1m"), a.wait("?wait=1m"))
	})
}

func TestRefusedBarrierCallReturnsStatusAndReason(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, pod := atBarrier(t)
		a := pod("a")
		for path, want := range map[string]string{
			"POST " + waitPath:                              "409 Closed",
			"POST " + waitPath + "?wait=0s":                 "409 Closed",
			"POST " + waitPath + "?wait=9":                  "400 BadRequest",
			"POST /v1/barrier/other/wait":                   "404 NotDeclared",
			"GET /v1/barrier/other":                         "404 NotDeclared",
			"GET /v1/barrier/warm?watch=true":               "400 BadRequest",
			"GET /v1/barrier/warm?watch=x":                  "400 BadRequest",
			"POST /v1/barrier/warm/holds":                   "404 NotDeclared",
			"POST /v1/holds?claims=barrier/warm,lock/a":     "400 BadRequest",
			"POST /v1/variable/warm/wait":                   "404 NoSuchPath",
			"POST " + strings.Replace(waitPath, "w", "", 1): "404 NotDeclared",
		} {
			method, rest, _ := strings.Cut(path, " ")
			code, body := a.call(method, rest)
			assert.Equal(t, want, fmt.Sprint(code, " ", body["reason"]), path)
		}
		assert.Empty(t, s.Requests("put", "watch", "event"), "a look makes no pod count")
		s.Edit(meets.Leases("run-1")[0], func(l *kube.Lease) { l.Annotations = map[string]string{api.OpenedAnnotation: "2"} })
		code, body := a.call(http.MethodGet, "/v1/barrier/warm")
		assert.Equal(t, []any{http.StatusOK, "closed"}, []any{code, body["state"]}, "open for fewer pods")
		s.SetAway(true)
		code, body = a.call(http.MethodGet, "/v1/barrier/warm")
		assert.Equal(t, []any{http.StatusServiceUnavailable, "Unavailable"}, []any{code, body["reason"]})
		call := a.wait("?wait=1m")
		<-call.done
		assert.Equal(t, "Closed", call.reason)
	})
}

func TestStoppedAgentEndsTheWaitAtABarrier(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, pod := atBarrier(t)
		a := pod("a")
		call := a.wait("?wait=1h")
		last(t, time.Minute, call)
		close(a.stop)
		<-call.done
		assert.Equal(t, []any{http.StatusServiceUnavailable, "Stopping"}, []any{call.code, call.reason})
		require.NoError(t, <-a.ended)
		assert.Empty(t, s.arrived())
		call = a.wait("?wait=1h")
		<-call.done
		assert.Equal(t, "Stopping", call.reason)
	})
}

func TestLocalAPIRefusesTooManyConcurrentBarrierCalls(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, pod := atBarrier(t)
		a := pod("a")
		var all []*waiting
		for range mostBids {
			all = append(all, a.wait("?wait=1h"))
		}
		synctest.Wait()
		call := a.wait("?wait=1h")
		<-call.done
		assert.Equal(t, []any{http.StatusTooManyRequests, "TooManyBids"}, []any{call.code, call.reason})
		for _, w := range all {
			w.end()
		}
		after(time.Minute)
		assert.Empty(t, s.arrived(), "the refused call does not count")
	})
}

func TestReadOfABarrierOutlivesItsRecord(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t)
		a := start(t, s, "a", "barrier/warm=3")
		state := func() any {
			code, body := a.call(http.MethodGet, "/v1/barrier/warm")
			require.Equal(t, http.StatusOK, code)
			return body["state"]
		}
		assert.Equal(t, "closed", state(), "enroll has not made the Lease yet")
		first := meets.Leases("run-1")[0]
		s.Set(&kube.Lease{Name: first, Annotations: map[string]string{api.OpenedAnnotation: "3"}})
		assert.Equal(t, "open", state())
		s.Delete(first)
		assert.Equal(t, "open", state(), "an open barrier stays open")
	})
}
