// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package wait

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
)

// server is the API server, and the log of the pod that waits.
type server struct {
	*apiserver.Scripted
	mu  sync.Mutex
	log strings.Builder
}

// bubble runs the test with simulated time.
func bubble(t *testing.T, test func(t *testing.T, s *server)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, &server{Scripted: apiserver.NewScripted(t.Context())}) })
}

func (s *server) put(leases ...kube.Lease) {
	for _, l := range leases {
		s.Set(&l)
	}
}

// fail lets each request with the verb fail with the error that f returns; nil lets all succeed.
func (s *server) fail(verb string, f func(ctx context.Context) error) {
	s.Do(func() {
		before := s.Refuse
		s.Refuse = func(ctx context.Context, r apiserver.Request) error {
			switch {
			case r.Verb == verb && f != nil:
				return f(ctx)
			case r.Verb != verb && before != nil:
				return before(ctx, r)
			}
			return nil
		}
	})
}

// status returns the error of a refused request.
func status(code int) func(context.Context) error {
	return func(context.Context) error { return &kube.StatusError{Code: code} }
}

// events returns the Events so far.
func (s *server) events() (sent []kube.Event) {
	for _, r := range s.Requests("event") {
		sent = append(sent, r.Event)
	}
	return sent
}

// Write adds a line to the log.
func (s *server) Write(line []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.Write(line)
}

// running is a wait that a test has started with the function "start".
type running struct {
	began time.Time
	stop  context.CancelCauseFunc
	done  chan struct{}
	err   error
	took  time.Duration
}

// start runs a wait against the server.
func start(t *testing.T, s *server, conditions ...api.Condition) *running {
	t.Helper()
	ctx, stop := context.WithCancelCause(t.Context())
	r := &running{began: time.Now(), stop: stop, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.err = Conditions(ctx, Config{
			API: s.Client("web-0"), Conditions: conditions, PodName: "web-0", PodUID: "u-1", Log: s, Random: rand.NewPCG(1, 2),
		})
		r.took = time.Since(r.began)
	}()
	t.Cleanup(func() {
		stop(nil)
		<-r.done
	})
	synctest.Wait()
	return r
}

// lasts requires that the wait does not end within the next d.
func (r *running) lasts(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-r.done:
		require.FailNow(t, "the wait ended", "after %v: %v", r.took, r.err)
	case <-time.After(d):
	}
	synctest.Wait()
}

// atOnce is long enough for the wait to react to an event, and shorter than any pause.
const atOnce = time.Millisecond

// ends requires that all conditions are met within the duration.
func (r *running) ends(t *testing.T, within time.Duration) {
	t.Helper()
	select {
	case <-r.done:
		require.NoError(t, r.err)
	case <-time.After(within):
		require.FailNow(t, "the wait does not end")
	}
}
