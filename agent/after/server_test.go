// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package after

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// server is a fake API server. Each change gets the next version. A watch from a version
// replays all changes after that version.
type server struct {
	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each change
	history []change
	leases  map[string]*kube.Lease

	reads, watches []request
	events         []kube.Event

	// afterRead runs once, between the answer to a read and the watch.
	afterRead func()
	// refuseRead, refuseWatch and refuseEvent return the error of a request, or nil.
	refuseRead, refuseWatch, refuseEvent func(ctx context.Context) error
	// compacted is the last version that the server has compacted. A watch from that version, or
	// from an earlier one, fails.
	compacted int
	// replayed has the old states with which each watch without a version begins.
	replayed []kube.Lease
	// If silent is set, watches deliver nothing. If endAfter is not zero, each watch ends by
	// itself after that time.
	silent   bool
	endAfter time.Duration

	log strings.Builder
}

// request records one read or one watch. For a watch, the field "version" is the version
// from which the watch began.
type request struct {
	lease, version string
	at             time.Time
}

type change struct {
	version int
	event   kube.WatchEvent
}

func newServer() *server {
	return &server{changed: make(chan struct{}), leases: map[string]*kube.Lease{}}
}

// put stores the Lease as a new version.
func (s *server) put(l kube.Lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.UID == "" {
		l.UID = "lease-1"
	}
	kind := kube.Modified
	if s.leases[l.Name] == nil {
		kind = kube.Added
	}
	l.ResourceVersion = strconv.Itoa(len(s.history) + 1)
	s.leases[l.Name] = &l
	s.store(kind, l)
}

// remove deletes the Lease.
func (s *server) remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := *s.leases[name]
	delete(s.leases, name)
	l.ResourceVersion = strconv.Itoa(len(s.history) + 1)
	s.store(kube.Deleted, l)
}

// store appends the change, and wakes all watches. The caller holds the mutex.
func (s *server) store(kind kube.WatchType, l kube.Lease) {
	event := kube.WatchEvent{Type: kind, Lease: &l, ResourceVersion: l.ResourceVersion}
	s.history = append(s.history, change{len(s.history) + 1, event})
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *server) GetLease(ctx context.Context, name string) (*kube.Lease, error) {
	s.mu.Lock()
	s.reads = append(s.reads, request{lease: name, at: time.Now()})
	refuse, l, between := s.refuseRead, s.leases[name], s.afterRead
	s.mu.Unlock()
	if refuse != nil {
		if err := refuse(ctx); err != nil {
			return nil, fmt.Errorf("get lease %s: %w", name, err)
		}
	}
	if between != nil {
		s.change(func() { s.afterRead = nil })
		between()
	}
	if l == nil {
		return nil, &kube.StatusError{Code: 404, Reason: "NotFound"}
	}
	return l.Clone(), nil
}

func (s *server) WatchLease(ctx context.Context, name, version string, fn func(kube.WatchEvent)) error {
	s.mu.Lock()
	s.watches = append(s.watches, request{name, version, time.Now()})
	refuse, l, last, compacted := s.refuseWatch, s.leases[name], len(s.history), s.compacted
	silent, endAfter, replayed := s.silent, s.endAfter, s.replayed
	s.mu.Unlock()
	if refuse != nil {
		if err := refuse(ctx); err != nil {
			return fmt.Errorf("watch lease %s: %w", name, err)
		}
	}
	if version == "" {
		for _, old := range replayed {
			fn(kube.WatchEvent{Type: kube.Added, Lease: old.Clone(), ResourceVersion: old.ResourceVersion})
		}
		if l != nil {
			fn(kube.WatchEvent{Type: kube.Added, Lease: l.Clone(), ResourceVersion: l.ResourceVersion})
		}
	} else {
		last, _ = strconv.Atoi(version)
		if last <= compacted {
			return &kube.StatusError{Code: 410}
		}
	}
	fn(kube.WatchEvent{Type: kube.Bookmark, ResourceVersion: strconv.Itoa(last)})
	var end <-chan time.Time
	if endAfter > 0 {
		end = time.After(endAfter)
	}
	for {
		s.mu.Lock()
		fresh, changed := s.history[last:], s.changed
		s.mu.Unlock()
		for _, c := range fresh {
			last = c.version
			if c.event.Lease.Name == name && !silent {
				fn(c.event)
			}
		}
		select {
		case <-changed:
		case <-end:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *server) CreateEvent(ctx context.Context, event kube.Event) error {
	s.mu.Lock()
	s.events = append(s.events, event)
	refuse := s.refuseEvent
	s.mu.Unlock()
	if refuse != nil {
		return refuse(ctx)
	}
	return nil
}

// sent returns the Events so far.
func (s *server) sent() []kube.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

// requests returns the reads and watches so far.
func (s *server) requests() (reads, watches []request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.reads), slices.Clone(s.watches)
}

// change calls f under the mutex. The function f changes the behaviour of the server.
func (s *server) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// Write adds a line to the log.
func (s *server) Write(line []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.Write(line)
}

// running is a wait that a test has started with the function "start".
type running struct {
	*server
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
	r := &running{server: s, began: time.Now(), stop: stop, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.err = Run(ctx, Config{
			API: s, Conditions: conditions, PodName: "web-0", PodUID: "u-1", Log: s, Random: rand.NewPCG(1, 2),
		})
		r.took = time.Since(r.began)
	}()
	t.Cleanup(func() { stop(nil) })
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

// atOnce is long enough for the wait to react to an event, and shorter than [shortestPause].
const atOnce = time.Millisecond

// ends requires that all conditions are met within the duration.
func (r *running) ends(t *testing.T, within time.Duration) {
	t.Helper()
	synctest.Wait()
	select {
	case <-r.done:
		require.NoError(t, r.err)
	case <-time.After(within):
		reads, watches := r.requests()
		require.FailNow(t, "the wait does not end", "reads: %v, watches: %v", reads, watches)
	}
}

// ended stops the wait, and returns once the wait has ended.
func (r *running) ended() {
	r.stop(nil)
	<-r.done
}
