// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package variable

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
)

var errAway = errors.New("connection refused")

// server is a fake API server with one Variable. Each request takes a millisecond.
type server struct {
	mu      sync.Mutex
	changed chan struct{}
	of      *kube.Variable
	version int
	// requests counts the requests of each verb.
	requests map[string]int
	// put, if not nil, decides whether a write is stored, and whether its answer arrives.
	put func(v *kube.Variable) (stored, answered bool)
	// deny, if not nil, is the answer to each write.
	deny error
	// get, if not nil, returns the error of a read.
	get func() error
	// mute, if not nil, is the error with which each watch ends at once.
	mute error
}

func newServer() *server {
	return &server{
		changed: make(chan struct{}), version: 1, requests: map[string]int{}, of: &kube.Variable{Name: "hits", UID: "u", ResourceVersion: "1"},
	}
}

func (s *server) begin(verb string) {
	<-time.After(time.Millisecond)
	s.mu.Lock()
	s.requests[verb]++
}

func (s *server) GetVariable(ctx context.Context, _ string) (*kube.Variable, error) {
	s.begin("get")
	defer s.mu.Unlock()
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case s.get != nil && s.get() != nil:
		return nil, s.get()
	case s.of == nil:
		return nil, &kube.StatusError{Code: 404, Reason: "NotFound"}
	}
	return s.of.Clone(), nil
}

func (s *server) UpdateVariable(_ context.Context, v *kube.Variable) (*kube.Variable, error) {
	s.begin("put")
	defer s.mu.Unlock()
	if s.deny != nil {
		return nil, s.deny
	}
	stored, answered := true, true
	if s.put != nil {
		stored, answered = s.put(v)
	}
	if stored {
		switch {
		case s.of == nil:
			return nil, &kube.StatusError{Code: 404, Reason: "NotFound"}
		case s.of.ResourceVersion != v.ResourceVersion || s.of.UID != v.UID:
			if answered {
				return nil, &kube.StatusError{Code: 409}
			}
		case !admitsAfter(s.of, v):
			return nil, &kube.StatusError{Code: 422, Message: "FencedOff"}
		default:
			s.store(v)
		}
	}
	if !answered {
		return nil, errAway
	}
	return s.of.Clone(), nil
}

// admitsAfter reports whether the schema admits a write that replaces "before" by "next".
func admitsAfter(before, next *kube.Variable) bool {
	return before.Fence == nil || next.Fence != nil && admits(before.Fence, *next.Fence)
}

// store stores a state, which gets a new resourceVersion.
func (s *server) store(v *kube.Variable) {
	s.version++
	s.of = v.Clone()
	s.of.ResourceVersion = strconv.Itoa(s.version)
	close(s.changed)
	s.changed = make(chan struct{})
}

// edit changes the Variable, as another pod's write does.
func (s *server) edit(change func(v *kube.Variable)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.of.Clone()
	next.Write = fmt.Sprintf("other.%d", s.version)
	change(next)
	s.store(next)
}

func (s *server) WatchVariable(ctx context.Context, _, from string, fn func(v *kube.Variable, gone bool)) error {
	s.begin("watch")
	mute := s.mute
	s.mu.Unlock()
	told, _ := strconv.Atoi(from)
	for mute == nil {
		s.mu.Lock()
		of, version, changed := s.of, s.version, s.changed
		s.mu.Unlock()
		if of == nil {
			fn(&kube.Variable{Name: "hits", UID: "u", ResourceVersion: strconv.Itoa(version)}, true)
			return nil
		}
		if version > told {
			fn(of.Clone(), false)
			told = version
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return mute
}

// integer returns the integer that the server has.
func (s *server) integer() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of.Integer == nil {
		return 0
	}
	return *s.of.Integer
}

// count returns the number of requests with the verb.
func (s *server) count(verb string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests[verb]
}

// remove deletes the Variable.
func (s *server) remove() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.of = nil
	close(s.changed)
	s.changed = make(chan struct{})
}

// start makes the Variable of the pod's agent, and runs that Variable until the test ends.
func start(t *testing.T, s *server, pod string) *Variable {
	t.Helper()
	v := New(Config{
		Name: "hits", Requests: s, PodUID: pod, Process: "p", Random: rand.NewPCG(1, uint64(len(pod))), Log: slog.New(slog.DiscardHandler),
	})
	ctx, end := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		v.Run(ctx, nil)
	}()
	t.Cleanup(func() {
		end()
		<-done
	})
	return v
}

// bubble runs the test with simulated time.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, f)
}

// state decodes a Variable from the JSON of its spec.
func state(t *testing.T, spec string) *kube.Variable {
	t.Helper()
	v := new(kube.Variable)
	require.NoError(t, json.Unmarshal([]byte(`{"metadata":{"name":"hits","uid":"u","resourceVersion":"1"},"spec":`+spec+`}`), v))
	return v
}
