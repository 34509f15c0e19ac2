// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/leash"
	"github.com/metaparticle-io/metaparticle/api"
)

var errAway = errors.New("connection refused")

// server is a fake API server with some Leases. Each request takes a millisecond.
type server struct {
	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at each change
	history  []kube.WatchEvent
	leases   map[string]*kube.Lease
	requests []string
	// away makes the server refuse all requests. If the field "loses" is set, the server stores
	// each write, but the answer is lost. In that case no held Lease can be read, either.
	away, loses bool
	// slow is the time by which the server delays each write.
	slow      time.Duration
	variables variables
}

func newServer(leases ...string) *server {
	s := &server{changed: make(chan struct{}), leases: map[string]*kube.Lease{}}
	for _, name := range leases {
		s.store(&kube.Lease{Name: name, UID: "uid-" + name})
	}
	return s
}

func (s *server) store(l *kube.Lease) *kube.Lease {
	l.ResourceVersion = strconv.Itoa(len(s.history) + 1)
	s.leases[l.Name] = l
	s.history = append(s.history, kube.WatchEvent{Type: kube.Modified, Lease: l.Clone(), ResourceVersion: l.ResourceVersion})
	close(s.changed)
	s.changed = make(chan struct{})
	return l.Clone()
}

func (s *server) begin(verb, name string) error {
	<-time.After(time.Millisecond)
	s.mu.Lock()
	s.requests = append(s.requests, verb+" "+name)
	if s.away {
		return errAway
	}
	return nil
}

func (s *server) GetLease(_ context.Context, name string) (*kube.Lease, error) {
	err := s.begin("get", name)
	defer s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if s.leases[name] == nil {
		return nil, &kube.StatusError{Code: 404, Reason: "NotFound"}
	}
	if s.loses && s.leases[name].Holder != "" {
		return nil, errAway
	}
	return s.leases[name].Clone(), nil
}

func (s *server) UpdateLease(_ context.Context, l *kube.Lease) (*kube.Lease, error) {
	s.mu.Lock()
	slow := s.slow
	s.mu.Unlock()
	if slow > 0 {
		// The race detector crashes if goroutines of one bubble receive from timers of zero at once (Go 1.26).
		<-time.After(slow)
	}
	err := s.begin("put", l.Name)
	defer s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if s.leases[l.Name] == nil {
		return nil, &kube.StatusError{Code: 404, Reason: "NotFound"}
	}
	if s.leases[l.Name].ResourceVersion != l.ResourceVersion || s.leases[l.Name].UID != l.UID {
		return nil, &kube.StatusError{Code: 409}
	}
	stored := s.store(l.Clone())
	if s.loses {
		return nil, errAway
	}
	return stored, nil
}

func (s *server) CreateEvent(context.Context, kube.Event) error {
	err := s.begin("create", "event")
	s.mu.Unlock()
	return err
}

func (s *server) WatchLease(ctx context.Context, name, from string, fn func(kube.WatchEvent)) error {
	err := s.begin("watch", name)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	next, _ := strconv.Atoi(from)
	for {
		s.mu.Lock()
		events, changed, away := s.history[next:], s.changed, s.away
		next = len(s.history)
		s.mu.Unlock()
		if away {
			return errAway
		}
		for _, e := range events {
			if e.Lease.Name == name {
				fn(kube.WatchEvent{Type: e.Type, Lease: e.Lease.Clone(), ResourceVersion: e.ResourceVersion})
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// change changes the server, and wakes all watches.
func (s *server) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *server) edit(name string, edit func(*kube.Lease)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.leases[name].Clone()
	edit(l)
	s.store(l)
}

func (s *server) lease(name string) *kube.Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leases[name].Clone()
}

func (s *server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.requests)
}

// pod is the local API of one pod. The API runs until the test ends, or until the call of kill.
type pod struct {
	t       *testing.T
	name    string
	handler http.Handler
	leaps   chan struct{}
	stop    chan struct{}
	kill    context.CancelFunc
	ended   chan error
}

// The variable "starts" counts the started agents, so that each agent gets its own random source.
var starts atomic.Uint64

// start starts the local API of a pod with the claims.
func start(t *testing.T, s *server, name, claims string) *pod {
	t.Helper()
	p, _ := begin(t, s, name, claims, 0)
	return p
}

// startFor starts the local API of a pod with the claim lock/a and the given lease duration.
func startFor(t *testing.T, s *server, name string, duration time.Duration) (*pod, *API) {
	t.Helper()
	return begin(t, s, name, "lock/a", duration)
}

func begin(t *testing.T, s *server, name, claims string, duration time.Duration) (*pod, *API) {
	t.Helper()
	return beginLeashed(t, s, name, claims, duration, nil)
}

// beginLeashed starts the local API of a pod. The leash kills the programs of lost holds; nil lets
// these programs run on.
func beginLeashed(t *testing.T, s *server, name, claims string, duration time.Duration, l *leash.Leash) (*pod, *API) {
	t.Helper()
	return beginWith(t, s, name, claims, func(c *Config) { c.LeaseDuration, c.Leash = duration, l })
}

// beginWith starts the local API of a pod. The function "set" changes the settings.
func beginWith(t *testing.T, s *server, name, claims string, set func(*Config)) (*pod, *API) {
	t.Helper()
	args, err := api.ParseLocalArgs([]string{"-claims=" + claims, "-run=run-1"})
	require.NoError(t, err)
	began := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // the time at which each bubble of synctest begins
	p := &pod{t: t, name: name, leaps: make(chan struct{}), stop: make(chan struct{}), ended: make(chan error, 1)}
	config := Config{
		PodName: name, PodUID: "u", PodIP: "10.0.0.1", Claims: args.Claims, BootID: "boot",
		Leases: s, Variables: &s.variables, Run: args.Run, Barriers: s, Leaps: p.leaps, Clock: func() time.Duration { return time.Since(began) },
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
		s := newServer("lock.a")
		first, second := start(t, s, "first", "lock/a"), start(t, s, "second", "lock/a")
		number := first.hold("")
		l := s.lease("lock.a")
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
		assert.Equal(t, api.Identity("second", "u"), s.lease("lock.a").Holder)
		assert.Less(t, time.Since(began), time.Second)
	})
}
