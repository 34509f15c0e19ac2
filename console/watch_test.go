// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/console/view"
)

// soon bounds each wait of a test.
const soon = 30 * time.Second

// server is an API server with one Lease, and without pods and Events.
type server struct {
	*httptest.Server

	mu    sync.Mutex
	lease *coordinationv1.Lease
	// asked are the requests, as verb, path and selectors.
	asked map[string]bool
	// outage answers each request instead of the server, if set.
	outage http.HandlerFunc
	// changes receives the changed Leases that the server sends on the watch.
	changes chan *coordinationv1.Lease
}

func newServer(t *testing.T, lease *coordinationv1.Lease) *server {
	s := &server{lease: lease, asked: map[string]bool{}, changes: make(chan *coordinationv1.Lease, 8)}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	t.Cleanup(s.CloseClientConnections)
	return s
}

// kinds are the kinds of the listed objects, by the paths of their lists.
var kinds = map[string]metav1.TypeMeta{
	"/api/v1/pods":                        {APIVersion: "v1", Kind: "Pod"},
	"/api/v1/events":                      {APIVersion: "v1", Kind: "Event"},
	"/apis/coordination.k8s.io/v1/leases": {APIVersion: "coordination.k8s.io/v1", Kind: "Lease"},
	"/apis/apps/v1/deployments":           {APIVersion: "apps/v1", Kind: "Deployment"},
	"/apis/apps/v1/statefulsets":          {APIVersion: "apps/v1", Kind: "StatefulSet"},
	"/apis/apps/v1/daemonsets":            {APIVersion: "apps/v1", Kind: "DaemonSet"},
	"/apis/batch/v1/jobs":                 {APIVersion: "batch/v1", Kind: "Job"},
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	s.mu.Lock()
	s.asked[fmt.Sprint(r.Method, " ", r.URL.Path, " ", query.Get("labelSelector"), query.Get("fieldSelector"))] = true
	outage, lease := s.outage, s.lease
	s.mu.Unlock()
	kind, known := kinds[r.URL.Path]
	if !known {
		outage = refuses(http.StatusNotFound)
	}
	if outage != nil {
		outage(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	var items []any
	if kind.Kind == "Lease" {
		lease.TypeMeta = kind
		items = append(items, lease)
	}
	encoder := json.NewEncoder(w)
	if query.Get("watch") == "" {
		_ = encoder.Encode(map[string]any{"apiVersion": kind.APIVersion, "kind": kind.Kind + "List", "metadata": map[string]any{"resourceVersion": "1"}, "items": items})
		return
	}
	send := func(name string, object any) {
		_ = encoder.Encode(map[string]any{"type": name, "object": object})
		_ = http.NewResponseController(w).Flush()
	}
	if query.Get("sendInitialEvents") == "true" {
		for _, item := range items {
			send("ADDED", item)
		}
		send("BOOKMARK", map[string]any{"apiVersion": kind.APIVersion, "kind": kind.Kind, "metadata": map[string]any{
			"resourceVersion": "1", "annotations": map[string]string{metav1.InitialEventsAnnotationKey: "true"},
		}})
	}
	changes := s.changes
	if kind.Kind != "Lease" {
		changes = nil
	}
	for {
		select {
		case <-r.Context().Done():
			return
		case lease := <-changes:
			lease.TypeMeta = kind
			send("MODIFIED", lease)
		}
	}
}

// refuses returns a handler that answers with the status.
func refuses(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "refused", status) }
}

// breaks begins an outage, in which the handler answers each request. With the handler nil, breaks
// ends the outage. In both cases, breaks also ends all watches.
func (s *server) breaks(outage http.HandlerFunc) {
	s.mu.Lock()
	s.outage = outage
	s.mu.Unlock()
	s.CloseClientConnections()
}

// leaseOf returns the Lease of a lock. Without a holder the Lease is free.
func leaseOf(version int, holder string, renewed time.Time) *coordinationv1.Lease {
	l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
		Namespace: "shop", Name: "lock.a", UID: "lock-a", ResourceVersion: fmt.Sprint(version), Labels: map[string]string{api.ManagedLabel: "true"},
	}}
	if holder != "" {
		l.Spec.HolderIdentity = new(api.Identity(holder, holder+"-uid"))
		l.Spec.RenewTime = &metav1.MicroTime{Time: renewed}
	}
	return l
}

// published is one publication.
type published struct {
	slots   []view.Slot
	trouble string
}

// watching returns a watch that runs, and its publications.
func watching(t *testing.T, s *server) (*watch, chan published) {
	t.Helper()
	all := make(chan published, 100)
	w, err := newWatch(&rest.Config{Host: s.URL}, func(slots []view.Slot, trouble string) error {
		all <- published{slots, trouble}
		return nil
	}, func(trouble string) error {
		all <- published{nil, trouble}
		return nil
	}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-ended)
	})
	return w, all
}

// next returns the next publication.
func next(t *testing.T, all chan published) published {
	t.Helper()
	select {
	case p := <-all:
		return p
	case <-time.After(soon):
		require.Fail(t, "nothing was published")
		return published{}
	}
}

func TestConsolePublishesEachChangeOfASlot(t *testing.T) {
	s := newServer(t, leaseOf(1, "a", time.Now()))
	w, all := watching(t, s)
	p := next(t, all)
	require.Len(t, p.slots, 1)
	assert.Equal(t, "a", p.slots[0].Holder.Pod)
	assert.Empty(t, p.trouble)
	assert.True(t, w.synced())

	// A renewal alone is not published. The next change publishes the renewal, too.
	s.changes <- leaseOf(2, "a", time.Now())
	s.changes <- leaseOf(3, "b", time.Now())
	assert.Equal(t, "b", next(t, all).slots[0].Holder.Pod)
	s.changes <- leaseOf(4, "", time.Time{})
	assert.Nil(t, next(t, all).slots[0].Holder)

	s.mu.Lock()
	defer s.mu.Unlock()
	assert.Equal(t, map[string]bool{
		"GET /api/v1/pods metaparticle.io/gated=true":                          true,
		"GET /api/v1/events involvedObject.kind=Pod,source=metaparticle-agent": true,
		"GET /apis/coordination.k8s.io/v1/leases " + api.ManagedLabel:          true,
		"GET /apis/apps/v1/deployments ":                                       true,
		"GET /apis/apps/v1/statefulsets ":                                      true,
		"GET /apis/apps/v1/daemonsets ":                                        true,
		"GET /apis/batch/v1/jobs ":                                             true,
	}, s.asked, "the console reads nothing else")
}

func TestHolderThatStopsRenewingIsShownAsSilent(t *testing.T) {
	held := leaseOf(1, "a", time.Now())
	held.Spec.LeaseDurationSeconds = new(int32(2))
	s := newServer(t, held)
	_, all := watching(t, s)
	assert.Nil(t, next(t, all).slots[0].Holder.SilentSince)
	assert.NotNil(t, next(t, all).slots[0].Holder.SilentSince)
	renewed := leaseOf(2, "a", time.Now())
	renewed.Spec.LeaseDurationSeconds = new(int32(2))
	s.changes <- renewed
	assert.Nil(t, next(t, all).slots[0].Holder.SilentSince)
}

func TestConsoleIgnoresUpdatesThatOnlyRenewALease(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		before, after any
		want          bool
	}{
		"a renewal":        {leaseOf(1, "a", now), leaseOf(2, "a", now.Add(time.Second)), true},
		"another holder":   {leaseOf(1, "a", now), leaseOf(2, "b", now), false},
		"a release":        {leaseOf(1, "a", now), leaseOf(2, "", now), false},
		"another mark":     {leaseOf(1, "a", now), func() any { l := leaseOf(2, "a", now); l.Annotations = map[string]string{"a": "b"}; return l }(), false},
		"a pod":            {&corev1.Pod{}, &corev1.Pod{}, false},
		"no object at all": {nil, nil, false},
	} {
		assert.Equal(t, c.want, onlyRenewed(c.before, c.after), name)
	}
}

func TestConsoleForgetsLeasesThatAreGone(t *testing.T) {
	one := &coordinationv1.Lease{}
	one.UID, one.ResourceVersion = "uid", "7"
	for name, gone := range map[string]any{
		"seen": one, "while the watch was closed": toolscache.DeletedFinalStateUnknown{Key: "shop/lock.a", Obj: one},
	} {
		t.Run(name, func(t *testing.T) {
			w := &watch{seen: map[types.UID]time.Time{}}
			w.note(nil, one)
			require.Len(t, w.seen, 1)
			w.note(gone, nil)
			assert.Empty(t, w.seen)
		})
	}
}

func TestConsoleServesPagesOnlyOnLoopbackAddresses(t *testing.T) {
	for address, ok := range map[string]bool{"127.0.0.1:0": true, "localhost:0": true, "[::]:0": false, "0.0.0.0:0": false, ":0": false} {
		listener, err := listen(t.Context(), address)
		assert.Equal(t, ok, err == nil, "%s %v", address, err)
		if err == nil {
			listener.Close()
		}
	}
}

// TestCanceledContextEndsTheConsoleWithoutError runs the whole console with an API server.
func TestCanceledContextEndsTheConsoleWithoutError(t *testing.T) {
	s := newServer(t, leaseOf(1, "a", time.Now()))
	lines, log := newLog()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, &rest.Config{Host: s.URL}, Options{Address: "127.0.0.1:0", Health: "127.0.0.1:0", Log: log})
	}()
	address := <-lines
	response, err := http.Get("http://" + address + "/events")
	require.NoError(t, err)
	defer response.Body.Close()
	text := make([]byte, len("retry: 1000"))
	_, err = response.Body.Read(text)
	require.NoError(t, err)
	assert.Equal(t, "retry: 1000", string(text))
	cancel()
	assert.NoError(t, <-ended)

	assert.ErrorContains(t, Run(t.Context(), &rest.Config{Host: s.URL}, Options{Address: "0.0.0.0:0", Health: "127.0.0.1:0", Log: log}), "must listen on the loopback")
}

// newLog returns a log, and a channel with the addresses that are written to the log.
func newLog() (chan string, *slog.Logger) {
	lines := make(chan string, 1)
	return lines, slog.New(addresses{slog.DiscardHandler, lines})
}

// addresses is a handler that sends the value of each attribute "address" to a channel.
type addresses struct {
	slog.Handler
	lines chan string
}

func (addresses) Enabled(context.Context, slog.Level) bool { return true }

func (a addresses) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(attr slog.Attr) bool {
		if attr.Key == "address" {
			a.lines <- attr.Value.String()
		}
		return true
	})
	return nil
}

func TestConsoleIsReadyOnlyWithSyncedCaches(t *testing.T) {
	full := false
	handler := probes(func() bool { return full })
	status := func(path string) int {
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, path, nil))
		return answer.Code
	}
	assert.Equal(t, 200, status("/healthz"))
	assert.Equal(t, 503, status("/readyz"))
	full = true
	assert.Equal(t, 200, status("/readyz"))
	assert.Equal(t, 404, status("/events"), "the port of the probes tells nothing about slots")
}
