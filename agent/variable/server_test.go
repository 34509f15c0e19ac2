// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package variable

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
)

var errAway = errors.New("connection refused")

// server is the API server with one Variable. Each request takes a millisecond.
type server struct {
	*apiserver.Scripted
	// put, if not nil, decides whether a write takes effect, and whether its answer arrives.
	put func(v *kube.Variable) (stored, answered bool)
	// denied, if not nil, is the error of each write.
	denied error
	// get, if not nil, returns the error of a read.
	get func() error
	// mute, if not nil, is the error with which each watch ends at once.
	mute error
}

func newServer(t *testing.T) *server {
	s := &server{Scripted: apiserver.NewScripted(t.Context())}
	s.Takes = time.Millisecond
	s.SetVariable(&kube.Variable{Name: "hits", UID: "u"})
	unanswered := false
	s.Refuse = func(_ context.Context, r apiserver.Request) error {
		s.Lock()
		put, get, mute := s.put, s.get, s.mute
		s.Unlock()
		switch {
		case r.Verb == "watch":
			return mute
		case r.Verb == "get" && get != nil:
			return get()
		case r.Verb == "put" && s.denied != nil:
			return s.denied
		case r.Verb == "put" && put != nil:
			stored, answered := put(r.Variable)
			if unanswered = !answered; !stored {
				return errAway
			}
		}
		return nil
	}
	s.Answer = func(r apiserver.Request, err error) error {
		if r.Verb == "put" && unanswered {
			unanswered = false
			return errAway
		}
		return err
	}
	return s
}

// of returns the Variable.
func (s *server) of() *kube.Variable { return s.Variable("hits") }

// edit changes the Variable, as another pod's write does.
func (s *server) edit(change func(v *kube.Variable)) {
	next := s.of()
	next.Write = "other." + next.ResourceVersion
	change(next)
	s.SetVariable(next)
}

// integer returns the integer that the server has.
func (s *server) integer() int64 {
	if n := s.of().Integer; n != nil {
		return *n
	}
	return 0
}

// count returns the number of requests with the verb.
func (s *server) count(verb string) int { return len(s.Requests(verb)) }

// remove deletes the Variable.
func (s *server) remove() { s.DeleteVariable("hits") }

// start makes the Variable of the pod's agent, and runs that Variable until the test ends.
func start(t *testing.T, s *server, pod string) *Variable {
	t.Helper()
	v := New(Config{
		Name: "hits", Requests: s.Client(pod), PodUID: pod, Process: "p", Random: rand.NewPCG(1, uint64(len(pod))), Log: slog.New(slog.DiscardHandler),
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
