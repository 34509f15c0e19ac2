// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/show"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
)

// server is the API server with the Leases of one namespace, the status of pods, and Events.
type server struct {
	*apiserver.Scripted
	client   *apiserver.Client
	mu       sync.Mutex
	watchers map[*watcher]bool
	// longest, if set, is the longest duration in seconds that the server stores, because a webhook
	// shortens longer durations.
	longest int
	patches int
	events  []kube.Event
	writes  int
	reads   int
	watches int
}

// watcher is an open watch. The function "end" ends the watch with an error.
type watcher struct{ end context.CancelCauseFunc }

func newServer(ctx context.Context) *server {
	s := &server{Scripted: apiserver.NewScripted(ctx), watchers: map[*watcher]bool{}}
	s.client = s.Client("agent")
	return s
}

// put creates or replaces a Lease, as enroll or a person does.
func (s *server) put(l *kube.Lease) *kube.Lease {
	s.Set(s.shortened(l))
	return s.Scripted.Lease(l.Name)
}

// shortened returns the Lease as the webhook changes it.
func (s *server) shortened(l *kube.Lease) *kube.Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l = l.Clone(); s.longest > 0 {
		l.DurationSeconds = min(l.DurationSeconds, s.longest)
	}
	return l
}

// shortens sets the longest duration in seconds that the server stores; zero for any.
func (s *server) shortens(seconds int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.longest = seconds
}

func (s *server) remove(name string) { s.Delete(name) }

func (s *server) lease(name string) kube.Lease {
	if l := s.Scripted.Lease(name); l != nil {
		return *l
	}
	return kube.Lease{}
}

func (s *server) patched() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.patches
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
			w.end(apiserver.ErrBroken)
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
	l.server.reads++
	l.server.mu.Unlock()
	return l.server.client.GetLease(ctx, name)
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
	s.writes++
	s.mu.Unlock()
	if next.UID == "" {
		panic("a PUT without uid")
	}
	return s.client.UpdateLease(context.Background(), s.shortened(next))
}

func (l *link) WatchLease(ctx context.Context, name, version string, fn func(kube.WatchEvent)) error {
	if err := l.leave(ctx); err != nil {
		return err
	}
	l.mu.Lock()
	unwatched, idle, orderly, forgetful := l.unwatched, l.idle, l.orderly, l.forgetful
	l.mu.Unlock()
	if forgetful && version != "" {
		unwatched = &kube.StatusError{Code: http.StatusGone}
	}
	watch, end := context.WithCancelCause(ctx)
	defer end(nil)
	w := &watcher{end: end}
	l.server.mu.Lock()
	l.server.watches++
	if unwatched == nil {
		l.server.watchers[w] = true
	}
	l.server.mu.Unlock()
	defer func() {
		l.server.mu.Lock()
		delete(l.server.watchers, w)
		l.server.mu.Unlock()
	}()
	if unwatched != nil {
		return unwatched
	}
	over := errors.New("cut by a load balancer")
	if idle != 0 {
		defer time.AfterFunc(idle, func() { end(over) }).Stop()
	}
	err := l.server.client.WatchLease(watch, name, version, func(e kube.WatchEvent) {
		l.mu.Lock()
		mute := l.mute
		l.mu.Unlock()
		if !mute {
			fn(e)
		}
	})
	switch cause := context.Cause(watch); {
	case ctx.Err() != nil || cause == nil:
		return err
	case orderly && errors.Is(cause, over):
		return nil
	default:
		return cause
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
