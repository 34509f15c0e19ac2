// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package barrier

import (
	"context"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
)

// server is the API server with the Leases of one barrier.
type server struct {
	*apiserver.Scripted
	// The requests of the pods in the map "dead" never get an answer.
	dead sync.Map
}

// pods is the size of the barrier in most tests.
const pods = 3

// duration is the lease duration in most tests.
const duration = 30 * time.Second

var leases = api.Barrier{Name: "warm", Size: pods}.Leases("run-1")

// bubble runs the test with simulated time, and with free Leases.
func bubble(t *testing.T, test func(t *testing.T, s *server)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &server{Scripted: apiserver.NewScripted(t.Context(), leases...)}
		s.Refuse = func(ctx context.Context, r apiserver.Request) error {
			if _, dead := s.dead.Load(r.By); dead {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		test(t, s)
	})
}

// opened returns the number of pods for which the first Lease records that the barrier is open;
// zero without a record.
func (s *server) opened() int {
	return api.Opened(s.Lease(leases[0]).Annotations[api.OpenedAnnotation])
}

// holders returns the pods that hold a Lease, by the Lease's index.
func (s *server) holders() (names [pods]string) {
	for i, name := range leases {
		names[i] = api.PodOf(s.Lease(name).Holder)
	}
	return names
}

// holds reports whether the pod holds a Lease.
func (s *server) holds(pod string) bool {
	names := s.holders()
	return slices.Contains(names[:], pod)
}

// kill makes the pod dead: from now on none of its requests reaches the server.
func (s *server) kill(pod string) {
	s.dead.Store(pod, true)
	s.Do(s.Watches.Cut)
}

// annotate sets the annotation of a Lease, or removes it if the value is empty.
func (s *server) annotate(lease, key, value string) {
	s.Edit(lease, func(l *kube.Lease) {
		if l.Annotations[key] = value; value == "" {
			delete(l.Annotations, key)
		}
	})
}

// waiting is a pod that waits at the barrier.
type waiting struct {
	stop context.CancelFunc
	done chan struct{}
	err  error
	// opened is closed when the pod knows that the barrier is open.
	opened chan struct{}
	// away makes [Config.Counts] return false for the pod.
	away atomic.Bool
}

// arrive starts a pod that waits at the barrier.
func (s *server) arrive(t *testing.T, pod string) *waiting {
	t.Helper()
	return s.arriveAt(t, pod, leases, duration)
}

// arriveAt starts a pod that waits at the barrier with the Leases.
func (s *server) arriveAt(t *testing.T, pod string, leases []string, duration time.Duration) *waiting {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	w := &waiting{stop: stop, done: make(chan struct{}), opened: make(chan struct{})}
	began := time.Now()
	go func() {
		defer close(w.done)
		w.err = Run(ctx, Config{
			API: s.Client(pod), Leases: leases, Duration: duration, PodName: pod, PodUID: "uid", Log: io.Discard,
			Clock: func() time.Duration { return time.Since(began) }, Counts: func(time.Duration) bool { return !w.away.Load() },
			Opened: func() { close(w.opened) },
			Random: rand.NewPCG(uint64(len(pod)), uint64(pod[len(pod)-1])),
		})
	}()
	t.Cleanup(func() {
		stop()
		<-w.done
	})
	return w
}

// lasts requires that the pods still wait after the time d.
func lasts(t *testing.T, d time.Duration, all ...*waiting) {
	t.Helper()
	<-time.After(d)
	synctest.Wait()
	for i, w := range all {
		select {
		case <-w.done:
			require.FailNow(t, "a pod went on", "pod %d: %v", i, w.err)
		default:
		}
	}
}

// ends requires that the waits of the pods end within the time.
func ends(t *testing.T, within time.Duration, all ...*waiting) {
	t.Helper()
	late := time.After(within)
	for i, w := range all {
		select {
		case <-w.done:
			require.NoError(t, w.err)
		case <-late:
			require.FailNow(t, "a pod still waits", "pod %d", i)
		}
	}
}
