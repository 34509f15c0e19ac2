// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/show"
)

// server is an API server in memory, with the Leases of one namespace. Each write of a
// Lease is a compare-and-swap.
type server struct {
	mu       sync.Mutex
	version  int
	leases   map[string]*kube.Lease
	watchers map[*watcher]bool
	// removed has the watch event of each deleted Lease.
	removed map[string]kube.WatchEvent
	// longest, if set, is the longest duration in seconds that the server stores, because a webhook
	// shortens longer durations.
	longest int
	patches int
	events  []kube.Event
	writes  int
	reads   int
	watches int
}

type watcher struct {
	name   string
	events chan kube.WatchEvent
	ended  chan struct{}
}

func newServer() *server {
	return &server{version: 100, leases: map[string]*kube.Lease{}, watchers: map[*watcher]bool{}, removed: map[string]kube.WatchEvent{}}
}

// put creates or replaces a Lease, as enroll or a person does.
func (s *server) put(l *kube.Lease) *kube.Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.UID == "" {
		l.UID = fmt.Sprintf("uid-%d", s.version)
	}
	return s.store(l)
}

func (s *server) store(l *kube.Lease) *kube.Lease {
	s.version++
	l = l.Clone()
	l.ResourceVersion = strconv.Itoa(s.version)
	if s.longest > 0 {
		l.DurationSeconds = min(l.DurationSeconds, s.longest)
	}
	s.leases[l.Name] = l
	for w := range s.watchers {
		if w.name == l.Name {
			w.events <- kube.WatchEvent{Type: kube.Modified, Lease: l.Clone(), ResourceVersion: l.ResourceVersion}
		}
	}
	return l.Clone()
}

// shortens sets the longest duration in seconds that the server stores; zero for any.
func (s *server) shortens(seconds int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.longest = seconds
}

func (s *server) remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	s.removed[name] = kube.WatchEvent{Type: kube.Deleted, Lease: s.leases[name].Clone(), ResourceVersion: strconv.Itoa(s.version)}
	delete(s.leases, name)
	for w := range s.watchers {
		if w.name == name {
			w.events <- s.removed[name]
		}
	}
}

func (s *server) lease(name string) kube.Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.leases[name]; l != nil {
		return *l.Clone()
	}
	return kube.Lease{}
}

// requests returns the number of requests so far, including watches, but without Events.
func (s *server) requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.writes + s.reads + s.watches + s.patches
}

// link is the connection of one node to the server.
type link struct {
	server *server
	mu     sync.Mutex
	// If "cut" is set, requests hang until they time out, and watches break. The field "refuse"
	// is the error of all requests. If "lose" is set, the server stores the next write, but the
	// answer to that write is lost.
	cut    bool
	refuse error
	lose   bool
	// slow is the time after which the server stores a write, even if its sender has given up.
	slow time.Duration
	// withheld, if set, delays the answer to the next write, until a test closes the channel. The
	// server stores that write immediately.
	withheld chan struct{}
	// broken names a Lease that cannot be written. If "unread" is set, no Lease can be read.
	broken string
	unread bool
	// hidden names a Lease that cannot be read.
	hidden string
	// unwatched is the error of all watches. If "mute" is set, a watch stays open but delivers no
	// event.
	unwatched error
	mute      bool
	// If "forgetful" is set, the server refuses each watch that names a resourceVersion, as if
	// that resourceVersion were too old.
	forgetful bool
	// idle is the time after which each watch ends. If "orderly" is set, the watch ends without an
	// error.
	idle    time.Duration
	orderly bool
	// unwritten, if set, is the error of all writes of Leases.
	unwritten error
	// meddle, if set, is called before each write of a Lease.
	meddle func()
	// sent counts the requests for Leases, with an answer or without.
	sent int
	// podReads counts the reads of the pod.
	podReads int
	// gets counts the agent's attempts to read a Lease.
	gets int
	// delay is the time that a patch of the status takes.
	delay time.Duration
	// If noStatus is set, the server refuses patches of the status.
	noStatus bool
	// If lateStatus is set, the agent gives up the next patch of the status before the patch
	// reaches the server. The field "late" keeps that patch, and the test stores it afterwards.
	lateStatus bool
	late       []byte
	// patches has the stored patches of the status, without the resourceVersion that each of
	// them named.
	patches []string
	// deleted reports that the pod is being deleted.
	deleted bool
	// graceEnds is the instant at which the deleted pod's grace is over.
	graceEnds time.Time
	// cost is the pod's deletion cost, if a person has set it. The field "edits" counts the changes of
	// the pod that no agent has made.
	cost  string
	edits int
}

func (l *link) set(f func(l *link)) {
	l.mu.Lock()
	f(l)
	cut := l.cut || l.refuse != nil
	l.mu.Unlock()
	if cut {
		l.server.mu.Lock()
		defer l.server.mu.Unlock()
		for w := range l.server.watchers {
			close(w.ended)
			delete(l.server.watchers, w)
		}
	}
}

func (l *link) pass(ctx context.Context) error {
	l.mu.Lock()
	cut, refuse := l.cut, l.refuse
	l.mu.Unlock()
	if refuse != nil {
		return refuse
	}
	if cut {
		<-ctx.Done()
		return ctx.Err()
	}
	return ctx.Err()
}

// leave counts a request for a Lease, and returns an error if the link does not let the request
// pass.
func (l *link) leave(ctx context.Context) error {
	l.mu.Lock()
	l.sent++
	l.mu.Unlock()
	return l.pass(ctx)
}

func (l *link) GetLease(ctx context.Context, name string) (*kube.Lease, error) {
	l.mu.Lock()
	l.gets++
	l.mu.Unlock()
	if err := l.leave(ctx); err != nil {
		return nil, err
	}
	l.mu.Lock()
	unread := l.unread || l.hidden == name
	l.mu.Unlock()
	if unread {
		return nil, &kube.StatusError{Code: http.StatusForbidden}
	}
	l.server.mu.Lock()
	defer l.server.mu.Unlock()
	l.server.reads++
	if found := l.server.leases[name]; found != nil {
		return found.Clone(), nil
	}
	return nil, &kube.StatusError{Code: 404, Reason: "NotFound"}
}

func (l *link) UpdateLease(ctx context.Context, next *kube.Lease) (*kube.Lease, error) {
	if err := l.leave(ctx); err != nil {
		return nil, err
	}
	l.mu.Lock()
	broken, unwritten, meddle, slow := l.broken, l.unwritten, l.meddle, l.slow
	l.mu.Unlock()
	if meddle != nil {
		meddle()
	}
	if next.Name == broken {
		return nil, &kube.StatusError{Code: 500}
	}
	if unwritten != nil {
		l.server.mu.Lock()
		defer l.server.mu.Unlock()
		l.server.writes++
		return nil, unwritten
	}
	if slow > 0 {
		return l.server.updateLater(ctx, next, slow)
	}
	stored, err := l.server.update(next)
	l.mu.Lock()
	lose, withheld := l.lose, l.withheld
	l.lose, l.withheld = false, nil
	l.mu.Unlock()
	if lose {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if withheld != nil {
		<-withheld
	}
	return stored, err
}

// updateLater stores the write after the delay, as an API server with a slow etcd does. Such a server
// refuses an outdated write at once.
func (s *server) updateLater(ctx context.Context, next *kube.Lease, delay time.Duration) (*kube.Lease, error) {
	if s.lease(next.Name).ResourceVersion != next.ResourceVersion {
		return nil, &kube.StatusError{Code: 409}
	}
	type answer struct {
		stored *kube.Lease
		err    error
	}
	written, answered := next.Clone(), make(chan answer, 1)
	go func() {
		<-time.After(delay)
		stored, err := s.update(written)
		answered <- answer{stored, err}
	}()
	select {
	case got := <-answered:
		return got.stored, got.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *server) update(next *kube.Lease) (*kube.Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	found := s.leases[next.Name]
	switch {
	case next.UID == "":
		panic("a PUT without uid")
	case found == nil:
		return nil, &kube.StatusError{Code: 404, Reason: "NotFound"}
	case found.UID != next.UID || found.ResourceVersion != next.ResourceVersion:
		return nil, &kube.StatusError{Code: 409}
	}
	return s.store(next), nil
}

func (l *link) WatchLease(ctx context.Context, name, version string, fn func(kube.WatchEvent)) error {
	if err := l.leave(ctx); err != nil {
		return err
	}
	w := &watcher{name: name, events: make(chan kube.WatchEvent, 1000), ended: make(chan struct{})}
	l.mu.Lock()
	unwatched, idle, orderly, forgetful := l.unwatched, l.idle, l.orderly, l.forgetful
	l.mu.Unlock()
	l.server.mu.Lock()
	l.server.watches++
	if forgetful && version != "" {
		unwatched = &kube.StatusError{Code: http.StatusGone}
	}
	if unwatched != nil {
		l.server.mu.Unlock()
		return unwatched
	}
	l.server.watchers[w] = true
	switch found := l.server.leases[name]; {
	case found == nil && version != "":
		w.events <- l.server.removed[name] // the Lease with that version has been deleted
	case found != nil && found.ResourceVersion != version:
		w.events <- kube.WatchEvent{Type: kube.Modified, Lease: found.Clone(), ResourceVersion: found.ResourceVersion}
	}
	l.server.mu.Unlock()
	defer func() {
		l.server.mu.Lock()
		delete(l.server.watchers, w)
		l.server.mu.Unlock()
	}()
	var over <-chan time.Time
	if idle != 0 {
		over = time.After(idle)
	}
	for {
		select {
		case e := <-w.events:
			l.mu.Lock()
			mute := l.mute
			l.mu.Unlock()
			if !mute {
				fn(e)
			}
		case <-over:
			if orderly {
				return nil
			}
			return errors.New("cut by a load balancer")
		case <-w.ended:
			return errors.New("connection reset")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (l *link) PatchPodStatus(ctx context.Context, _ string, patch []byte) (kube.Pod, error) {
	if err := l.pass(ctx); err != nil {
		return kube.Pod{}, err
	}
	l.mu.Lock()
	delay := l.delay
	l.mu.Unlock()
	if delay > 0 {
		// The race detector crashes if goroutines of one bubble receive from timers of zero at once (Go 1.26).
		select {
		case <-time.After(delay):
		case <-ctx.Done():
			return kube.Pod{}, ctx.Err()
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.noStatus {
		return kube.Pod{}, &kube.StatusError{Code: 403}
	}
	l.server.mu.Lock()
	defer l.server.mu.Unlock()
	l.server.patches++
	if l.lateStatus && string(patch) != string(show.Anything) {
		l.lateStatus, l.late = false, patch
		return kube.Pod{}, context.DeadlineExceeded
	}
	return l.store(patch)
}

func (l *link) ReadDeletion(ctx context.Context, pod string) (kube.Pod, error) {
	l.set(func(l *link) { l.podReads++ })
	return l.PatchPodStatus(ctx, pod, show.Anything)
}

// store handles a patch as the API server does. A patch that names another resourceVersion than the
// pod's is refused, and a patch that changes nothing is not stored.
func (l *link) store(patch []byte) (kube.Pod, error) {
	version := strconv.Itoa(len(l.patches) + l.edits)
	is := kube.Pod{ResourceVersion: version, Deleted: l.deleted, GraceLeft: max(0, time.Until(l.graceEnds)), DeletionCost: l.cost}
	var fields struct {
		Metadata map[string]any `json:"metadata,omitempty"`
		Status   any            `json:"status,omitempty"`
	}
	if err := json.Unmarshal(patch, &fields); err != nil {
		return kube.Pod{}, err
	}
	if named, ok := fields.Metadata["resourceVersion"]; ok && named != version {
		return kube.Pod{}, &kube.StatusError{Code: http.StatusConflict}
	}
	delete(fields.Metadata, "resourceVersion")
	stripped, err := json.Marshal(fields)
	if fields.Metadata == nil || slices.Equal(l.patches[max(0, len(l.patches)-1):], []string{string(stripped)}) {
		return is, err
	}
	l.patches = append(l.patches, string(stripped))
	is.ResourceVersion = strconv.Itoa(len(l.patches) + l.edits)
	return is, nil
}

func (l *link) CreateEvent(ctx context.Context, e kube.Event) error {
	if err := l.pass(ctx); err != nil {
		return err
	}
	l.server.mu.Lock()
	defer l.server.mu.Unlock()
	l.server.events = append(l.server.events, e)
	return nil
}
