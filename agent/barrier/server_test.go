// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package barrier

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

var errUnanswered = errors.New("connection reset")

// server is a fake API server with the Leases of one barrier.
type server struct {
	mu      sync.Mutex
	version int
	leases  map[string]*kube.Lease
	changed chan struct{} // closed and replaced at each change
	dead    map[string]bool
	puts    int
	gets    int
	// answer, if not nil, returns the error with which the server answers a write that it has
	// stored.
	answer func(l *kube.Lease) error
}

// pods is the size of the barrier in most tests.
const pods = 3

// duration is the lease duration in all tests.
const duration = 30 * time.Second

var leases = api.Barrier{Name: "warm", Size: pods}.Leases("run-1")

// bubble runs the test with simulated time, and with free Leases.
func bubble(t *testing.T, test func(t *testing.T, s *server)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &server{leases: map[string]*kube.Lease{}, changed: make(chan struct{}), dead: map[string]bool{}}
		for _, name := range leases {
			s.put(&kube.Lease{Name: name, UID: "u-" + name})
		}
		test(t, s)
	})
}

// put stores a Lease as a new version.
func (s *server) put(l *kube.Lease) *kube.Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.store(l)
}

// store stores a Lease as a new version, for a caller that holds the mutex.
func (s *server) store(l *kube.Lease) *kube.Lease {
	s.version++
	stored := l.Clone()
	stored.ResourceVersion = strconv.Itoa(s.version)
	s.leases[l.Name] = stored
	close(s.changed)
	s.changed = make(chan struct{})
	return stored.Clone()
}

// lease returns the present state of a Lease.
func (s *server) lease(name string) *kube.Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leases[name].Clone()
}

// written returns the number of writes so far.
func (s *server) written() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.puts
}

// read returns the number of reads so far.
func (s *server) read() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gets
}

// opened returns the number of pods for which the first Lease records that the barrier is open;
// zero without a record.
func (s *server) opened() int {
	return api.Opened(s.lease(leases[0]).Annotations[api.OpenedAnnotation])
}

// holders returns the pods that hold a Lease, by the Lease's index.
func (s *server) holders() (names [pods]string) {
	for i, name := range leases {
		names[i] = api.PodOf(s.lease(name).Holder)
	}
	return names
}

// holds reports whether the pod holds a Lease.
func (s *server) holds(pod string) bool {
	for _, name := range s.holders() {
		if name == pod {
			return true
		}
	}
	return false
}

// The type "from" is the client of one pod: each method is a request of the pod to the server. A
// request of a dead pod is never answered.
type from struct {
	*server
	pod string
}

func (f from) silent(ctx context.Context) error {
	f.mu.Lock()
	dead := f.dead[f.pod]
	f.mu.Unlock()
	if dead {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func (f from) GetLease(ctx context.Context, name string) (*kube.Lease, error) {
	if err := f.silent(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gets++
	if f.leases[name] == nil {
		return nil, &kube.StatusError{Code: 404, Reason: "NotFound"}
	}
	return f.leases[name].Clone(), nil
}

func (f from) UpdateLease(ctx context.Context, l *kube.Lease) (*kube.Lease, error) {
	if err := f.silent(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.puts++
	was := f.leases[l.Name]
	switch {
	case was == nil:
		return nil, &kube.StatusError{Code: 404, Reason: "NotFound"}
	case was.UID != l.UID || was.ResourceVersion != l.ResourceVersion:
		return nil, &kube.StatusError{Code: 409}
	}
	stored := f.store(l)
	if f.answer != nil {
		if err := f.answer(l); err != nil {
			return nil, err
		}
	}
	return stored, nil
}

func (f from) WatchLease(ctx context.Context, name, _ string, fn func(kube.WatchEvent)) error {
	for last := ""; ; {
		f.mu.Lock()
		l, changed, dead := f.leases[name], f.changed, f.dead[f.pod]
		f.mu.Unlock()
		if l != nil && l.ResourceVersion != last && !dead {
			last = l.ResourceVersion
			fn(kube.WatchEvent{Type: kube.Modified, Lease: l.Clone(), ResourceVersion: last})
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (f from) CreateEvent(ctx context.Context, _ kube.Event) error { return f.silent(ctx) }

// kill makes the pod dead: from now on none of its requests reaches the server.
func (s *server) kill(pod string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead[pod] = true
}

// waiting is a pod that waits at the barrier.
type waiting struct {
	stop context.CancelFunc
	done chan struct{}
	err  error
	// away makes [Config.Counts] return false for the pod.
	away atomic.Bool
}

// arrive starts a pod that waits at the barrier.
func (s *server) arrive(t *testing.T, pod string) *waiting {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	w := &waiting{stop: stop, done: make(chan struct{})}
	began := time.Now()
	go func() {
		defer close(w.done)
		w.err = Run(ctx, Config{
			API: from{s, pod}, Leases: leases, Duration: duration, PodName: pod, PodUID: "uid", Log: io.Discard,
			Clock: func() time.Duration { return time.Since(began) }, Counts: func(time.Duration) bool { return !w.away.Load() }, Random: rand.NewPCG(uint64(len(pod)), uint64(pod[0])),
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
