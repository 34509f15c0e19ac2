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
	"github.com/metaparticle-io/metaparticle/agent/status"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
)

// server is the API server with the Leases of one namespace, and Events. Each pod reaches it by a link.
type server struct {
	*apiserver.Scripted
	mu    sync.Mutex
	links map[string]*link
	// longest, if set, is the longest duration in seconds that the server stores, because a webhook
	// shortens longer durations.
	longest int
	patches int
	events  []kube.Event
}

func newServer(ctx context.Context) *server {
	s := &server{Scripted: apiserver.NewScripted(ctx), links: map[string]*link{}}
	s.Refuse = func(ctx context.Context, r apiserver.Request) error {
		s.mu.Lock()
		l := s.links[r.By]
		s.mu.Unlock()
		return l.fails(ctx, r)
	}
	s.Answer = func(r apiserver.Request, err error) error {
		if r.Verb == "event" {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.events = append(s.events, r.Event)
		}
		return err
	}
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
func (s *server) requests() int { return len(s.Requests("get", "put", "watch")) + s.patched() }

// link is the connection of one pod to the server.
type link struct {
	*apiserver.Client
	server *server
	name   string
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
	// podReads counts the reads of the pod.
	podReads int
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

// newLink returns the link of the pod with the name.
func newLink(s *server, name string) *link {
	l := &link{Client: s.Client(name), server: s, name: name}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.links[name] = l
	return l
}

func (l *link) set(f func(l *link)) {
	l.mu.Lock()
	f(l)
	cut := l.cut || l.refuse != nil
	l.mu.Unlock()
	if cut {
		l.server.Do(l.server.Watches.Cut)
	}
}

// fails returns the error of a request that does not pass, or lets that request hang.
func (l *link) fails(ctx context.Context, r apiserver.Request) error {
	l.mu.Lock()
	cut, refuse, meddle, slow := l.cut, l.refuse, l.meddle, l.slow
	get, put, watch := r.Verb == "get", r.Verb == "put", r.Verb == "watch"
	switch {
	case refuse != nil || cut:
	case get && (l.unread || l.hidden == r.Name):
		refuse = &kube.StatusError{Code: http.StatusForbidden}
	case put && r.Name == l.broken:
		refuse = &kube.StatusError{Code: 500}
	case put:
		refuse = l.unwritten
	case watch && l.forgetful && r.Version != "":
		refuse = &kube.StatusError{Code: http.StatusGone}
	case watch:
		refuse = l.unwatched
	}
	l.mu.Unlock()
	if cut && refuse == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	if put && meddle != nil {
		meddle()
	}
	if put && refuse == nil && slow > 0 {
		// An API server with a slow etcd refuses an outdated write at once.
		if l.server.lease(r.Name).ResourceVersion != r.Lease.ResourceVersion {
			return &kube.StatusError{Code: http.StatusConflict}
		}
		<-time.After(slow)
	}
	return refuse
}

// sent returns the number of the pod's requests with one of the verbs, with an answer or without.
func (l *link) sent(verbs ...string) (n int) {
	for _, r := range l.server.Requests(verbs...) {
		if r.By == l.name {
			n++
		}
	}
	return n
}

func (l *link) UpdateLease(ctx context.Context, next *kube.Lease) (*kube.Lease, error) {
	if next.UID == "" {
		panic("a PUT without uid")
	}
	stored, err := l.Client.UpdateLease(ctx, l.server.shortened(next))
	if err != nil {
		return nil, err
	}
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
	return stored, nil
}

var errIdle = errors.New("cut by a load balancer")

func (l *link) WatchLease(ctx context.Context, name, version string, fn func(kube.WatchEvent)) error {
	l.mu.Lock()
	idle, orderly := l.idle, l.orderly
	l.mu.Unlock()
	watch, end := context.WithCancelCause(ctx)
	defer end(nil)
	if idle != 0 {
		defer time.AfterFunc(idle, func() { end(errIdle) }).Stop()
	}
	err := l.Client.WatchLease(watch, name, version, func(e kube.WatchEvent) {
		l.mu.Lock()
		mute := l.mute
		l.mu.Unlock()
		if !mute {
			fn(e)
		}
	})
	switch {
	case ctx.Err() != nil || !errors.Is(context.Cause(watch), errIdle):
		return err
	case orderly:
		return nil
	}
	return errIdle
}

func (l *link) PatchPodStatus(ctx context.Context, _ string, patch []byte) (kube.Pod, error) {
	if err := l.fails(ctx, apiserver.Request{Verb: "patch"}); err != nil {
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
	if l.lateStatus && string(patch) != string(status.Anything) {
		l.lateStatus, l.late = false, patch
		return kube.Pod{}, context.DeadlineExceeded
	}
	return l.store(patch)
}

func (l *link) ReadDeletion(ctx context.Context, pod string) (kube.Pod, error) {
	l.set(func(l *link) { l.podReads++ })
	return l.PatchPodStatus(ctx, pod, status.Anything)
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
