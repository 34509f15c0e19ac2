// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
)

// server is the API server with some Leases and the Variable "hits". Each request takes a millisecond.
type server struct {
	*apiserver.Scripted
	// While the field "hangs" is true, no read and no write of a Lease gets an answer. While the field
	// "refusesWatches" is true, each watch gets the status 429.
	hangs, refusesWatches atomic.Bool
	// loses makes the server store each write without an answer. Then no held Lease can be read, either.
	loses atomic.Bool
}

func newServer(t *testing.T, leases ...string) *server {
	s := &server{Scripted: apiserver.NewScripted(t.Context(), leases...)}
	s.Takes = time.Millisecond
	s.SetVariable(&kube.Variable{Name: "hits", UID: "u"})
	s.Refuse = func(ctx context.Context, r apiserver.Request) error {
		switch {
		case r.Verb == "watch" && s.refusesWatches.Load():
			return &kube.StatusError{Code: 429}
		case r.Verb != "watch" && s.hangs.Load() && !strings.HasPrefix(r.Name, "variable."):
			<-ctx.Done()
			return ctx.Err()
		case r.Verb == "get" && s.loses.Load() && !strings.HasPrefix(r.Name, "variable.") && s.Lease(r.Name).Holder != "":
			return apiserver.ErrUnreachable
		}
		return nil
	}
	s.Answer = func(r apiserver.Request, err error) error {
		if r.Verb == "put" && err == nil && s.loses.Load() {
			return apiserver.ErrUnreachable
		}
		return err
	}
	return s
}

// slow sets the time by which the server delays each write.
func (s *server) slow(d time.Duration) { s.Do(func() { s.Writes = d }) }

// count returns the number of requests so far.
func (s *server) count() int { return len(s.Requests()) }

// pod is the local API of one pod. The API runs until the test ends, or until the call of kill.
type pod struct {
	t       *testing.T
	name    string
	handler http.Handler
	leaps   chan struct{}
	ahead   atomic.Int64 // of the wall clock
	stop    chan struct{}
	kill    context.CancelFunc
	ended   chan error
}

// The variable "starts" counts the started agents, so that each agent gets its own random source.
var starts atomic.Uint64

// start starts the local API of a pod with the claims.
func start(t *testing.T, s *server, name, claims string) *pod {
	t.Helper()
	p, _ := beginWith(t, s, name, claims, func(*Config) {})
	return p
}

// startFor starts the local API of a pod with the claim lock/a and the given lease duration.
func startFor(t *testing.T, s *server, name string, duration time.Duration) (*pod, *API) {
	t.Helper()
	return beginWith(t, s, name, "lock/a", func(c *Config) { c.LeaseDuration = duration })
}

// beginWith starts the local API of a pod. The function "set" changes the settings.
func beginWith(t *testing.T, s *server, name, claims string, set func(*Config)) (*pod, *API) {
	t.Helper()
	args, err := api.ParseLocalArgs([]string{"-claims=" + claims, "-run=run-1"})
	require.NoError(t, err)
	began := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // the time at which each bubble of synctest begins
	p := &pod{t: t, name: name, leaps: make(chan struct{}), stop: make(chan struct{}), ended: make(chan error, 1)}
	client := s.Client(name)
	config := Config{
		PodName: name, PodUID: "u", PodIP: "10.0.0.1", Claims: args.Claims, BootID: "boot",
		Leases: client, Variables: client, Run: args.Run, Barriers: client, Leaps: p.leaps, Ahead: func() time.Duration { return time.Duration(p.ahead.Load()) }, Clock: func() time.Duration { return time.Since(began) },
		Random: func() rand.Source { return rand.NewPCG(1, starts.Add(1)) },
	}
	set(&config)
	a, err := New(config)
	require.NoError(t, err)
	p.handler = a.Handler()
	ctx, kill := context.WithCancel(t.Context())
	p.kill = kill
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.ended <- a.Run(ctx, p.stop)
	}()
	t.Cleanup(func() {
		kill()
		<-done
	})
	return p, a
}

// leap makes the pod's wall clock leap.
func (p *pod) leap() {
	p.ahead.Add(int64(time.Second))
	p.leaps <- struct{}{}
}

// call sends one request, and returns the answer.
func (p *pod) call(method, path string) (code int, body map[string]any) {
	p.t.Helper()
	w := httptest.NewRecorder()
	p.handler.ServeHTTP(w, request(p.t.Context(), method, path))
	if w.Body.Len() > 0 {
		require.NoError(p.t, json.Unmarshal(w.Body.Bytes(), &body), w.Body.String())
	}
	return w.Code, body
}

func request(ctx context.Context, method, path string) *http.Request {
	r := httptest.NewRequestWithContext(ctx, method, path, http.NoBody)
	r.Host = "localhost:13131"
	return r
}

// hold bids for lock a, and returns the number of the hold.
func (p *pod) hold(query string) string {
	p.t.Helper()
	code, body := p.call(http.MethodPost, "/v1/lock/a/holds"+query)
	require.Equal(p.t, http.StatusCreated, code, body)
	return body["hold"].(string)
}

// lines records the streamed answer to one call.
type lines struct {
	http.ResponseWriter
	mu   sync.Mutex
	text bytes.Buffer
	code int
	end  context.CancelFunc
	done chan struct{}
}

func (l *lines) Header() http.Header { return http.Header{} }

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) WriteHeader(code int) { l.code = code }

func (l *lines) Flush() {}

// states returns the states in all lines so far. Equal states in a row appear once.
func (l *lines) states() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var states []string
	for line := range strings.Lines(l.text.String()) {
		var of holding
		_ = json.Unmarshal([]byte(line), &of)
		states = append(states, string(of.State))
	}
	return slices.Compact(states)
}

// stream opens a stream. The stream ends at the end of the test, or when the test calls the
// function in the field "end".
func (p *pod) stream(method, path string) *lines {
	ctx, end := context.WithCancel(p.t.Context())
	l := &lines{end: end, done: make(chan struct{})}
	go func() {
		defer close(l.done)
		p.handler.ServeHTTP(l, request(ctx, method, path))
	}()
	p.t.Cleanup(end)
	return l
}

// bubble runs the test with simulated time.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

func TestDeletionOfHoldPassesSlotToWaitingPod(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		first, second := start(t, s, "first", "lock/a"), start(t, s, "second", "lock/a")
		number := first.hold("")
		l := s.Lease("lock.a")
		assert.Equal(t, api.Identity("first", "u"), l.Holder)
		assert.Equal(t, "10.0.0.1", l.Annotations[api.AddressAnnotation])
		code, body := second.call(http.MethodPost, "/v1/lock/a/holds")
		assert.Equal(t, http.StatusConflict, code)
		assert.Equal(t, "first", body["holder"])

		waits := second.stream(http.MethodPost, "/v1/lock/a/holds?wait=1h&stream=true")
		<-time.After(time.Minute / 4)
		synctest.Wait()
		assert.Empty(t, waits.states())
		began := time.Now()
		code, _ = first.call(http.MethodDelete, "/v1/lock/a/holds/"+number)
		assert.Equal(t, http.StatusNoContent, code)
		<-time.After(20 * time.Millisecond)
		synctest.Wait()
		assert.Equal(t, []string{"held"}, waits.states())
		assert.Equal(t, api.Identity("second", "u"), s.Lease("lock.a").Holder)
		assert.Less(t, time.Since(began), time.Second)
	})
}

func TestRequestWithAForeignHostHeaderIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		p := start(t, s, "pod", "lock/a")
		call := func(host, path string) (code int, reason any) {
			w, r := httptest.NewRecorder(), request(t.Context(), http.MethodPost, path)
			r.Host = host
			p.handler.ServeHTTP(w, r)
			var body map[string]any
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body))
			return w.Code, body["reason"]
		}
		for _, host := range []string{"rebound.example:13131", "10.0.0.1:13131", "localhost.rebound.example", "pod", ""} {
			for _, path := range []string{"/v1/lock/a/holds", "/locks/a", "/"} {
				code, reason := call(host, path)
				assert.Equal(t, http.StatusForbidden, code, host)
				assert.Equal(t, hostProblem.Reason, reason, host)
			}
		}
		assert.Empty(t, s.Lease("lock.a").Holder)
		for _, host := range []string{"localhost:13131", "127.0.0.1:13131", "[::1]:13131", "LOCALHOST", "127.0.0.1", "::1", "[::1]"} {
			code, reason := call(host, "/")
			assert.Equal(t, http.StatusNotFound, code, host)
			assert.Equal(t, wildProblem.Reason, reason, host)
		}
		w, r := httptest.NewRecorder(), request(t.Context(), http.MethodPost, "/v1/lock/a/holds")
		r.Header.Set("Origin", "https://page.example")
		p.handler.ServeHTTP(w, r)
		assert.Equal(t, http.StatusForbidden, w.Code, "a web page sends calls to localhost, too")
		<-time.After(time.Second)
		assert.Empty(t, s.Lease("lock.a").Holder)
	})
}
