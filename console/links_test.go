// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"

	"github.com/metaparticle-io/metaparticle/console/view"
)

// TestConsoleWarnsOfEachOutageOfAPIServer includes failures after which client-go repeats the
// request without a report.
func TestConsoleWarnsOfEachOutageOfAPIServer(t *testing.T) {
	for name, outage := range map[string]http.HandlerFunc{
		"refused connections": nil,
		"429":                 refuses(http.StatusTooManyRequests),
		"403":                 refuses(http.StatusForbidden),
		"500":                 refuses(http.StatusInternalServerError),
		"no answer":           func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"an end at once":      func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, leaseOf(1, "a", time.Now()))
			_, all := watching(t, s)
			assert.Empty(t, next(t, all).trouble)
			if outage == nil {
				require.NoError(t, s.Listener.Close())
			}
			s.breaks(outage)
			for p := next(t, all); p.trouble == ""; p = next(t, all) {
			}
		})
	}
}

func TestConsoleWarningDisappearsWhenTheOutageEnds(t *testing.T) {
	t.Parallel()
	s := newServer(t, leaseOf(1, "a", time.Now()))
	_, all := watching(t, s)
	assert.Empty(t, next(t, all).trouble)
	s.breaks(refuses(http.StatusInternalServerError))
	for next(t, all).trouble == "" {
	}
	s.breaks(nil)
	for next(t, all).trouble != "" {
	}
}

func TestConsoleWarnsIfAPIServerRefusesEveryRequest(t *testing.T) {
	t.Parallel()
	s := newServer(t, leaseOf(1, "a", time.Now()))
	s.breaks(refuses(http.StatusTooManyRequests))
	w, all := watching(t, s)
	p := next(t, all)
	assert.Regexp(t, `^Since [0-9:]{8} UTC the API server sends no changes of [a-z, ]+\. What this page shows may be old\.$`, p.trouble)
	assert.Nil(t, p.slots)
	assert.False(t, w.synced())
}

func TestConsoleWarnsWhenPublishingSlotsFails(t *testing.T) {
	t.Parallel()
	s := newServer(t, leaseOf(1, "a", time.Now()))
	warned := make(chan string, 8)
	w, err := newWatch(&rest.Config{Host: s.URL}, func([]view.Slot, string) error { return errors.New("no JSON") },
		func(trouble string) error { warned <- trouble; return nil }, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.run(ctx) }()
	assert.Equal(t, unpublished, <-warned)
	cancel()
	require.NoError(t, <-ended)
}

// tripper is a transport that answers by a function of the test.
type tripper func(*http.Request) (*http.Response, error)

// RoundTrip implements [http.RoundTripper].
func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// opens begins a watch of the resource, and returns the writer of the answer's body.
func opens(t *testing.T, l *links, resource string) *io.PipeWriter {
	t.Helper()
	body, in := io.Pipe()
	l.next = tripper(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusOK, Body: body}, nil
	})
	answer, err := l.RoundTrip(httpRequest(t, resource)) //nolint:bodyclose // closed below, at its end
	require.NoError(t, err)
	go func() {
		_, _ = io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
	}()
	return in
}

func httpRequest(t *testing.T, resource string) *http.Request {
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost/api/v1/"+resource+"?watch=true", nil)
	require.NoError(t, err)
	return r
}

// TestConsoleWarnsOfBrokenOrSilentWatches takes one watch through the steps of a case. The fake clock
// advances only by the field "after" of each step.
func TestConsoleWarnsOfBrokenOrSilentWatches(t *testing.T) {
	const refused, open, end, bookmark = "refused", "open", "end", "bookmark"
	type step struct {
		after time.Duration
		does  string
		// since is the age of the trouble after the step. The value is zero if no trouble exists.
		since time.Duration
	}
	for name, c := range map[string]struct {
		resource string
		steps    []step
	}{
		"a server that refuses":       {"pods", []step{{0, refused, 0}, {closedFor - 1, "", 0}, {1, "", closedFor}, {time.Minute, refused, closedFor + time.Minute}}},
		"a watch that ends, as usual": {"pods", []step{{0, open, 0}, {time.Hour, end, 0}, {time.Second, open, 0}, {time.Hour, "", 0}}},
		"a watch that stays closed":   {"pods", []step{{0, open, 0}, {time.Hour, end, 0}, {time.Minute, "", time.Minute}}},
		"a watch that returns":        {"pods", []step{{0, refused, 0}, {closedFor, open, closedFor}, {steady, "", 0}}},
		"watches that end at once": {"pods", []step{
			{0, open, 0}, {time.Hour, end, 0}, {closedFor - 1, open, 0}, {1, end, closedFor}, {time.Second, open, closedFor + time.Second},
		}},
		"a silent watch of leases":           {"leases", []step{{0, open, 0}, {silentFor - 1, "", 0}, {1, "", silentFor}, {time.Second, bookmark, 0}}},
		"a watch of leases with bookmarks":   {"leases", []step{{0, open, 0}, {time.Minute, bookmark, 0}, {time.Minute, bookmark, 0}, {time.Minute, bookmark, 0}}},
		"a silent watch of leases that ends": {"leases", []step{{0, open, 0}, {time.Hour, end, time.Hour}}},
		"a watch of events, which has none":  {"events", []step{{0, open, 0}, {time.Hour, "", 0}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLinks()
				var in *io.PipeWriter
				for i, s := range c.steps {
					<-time.After(s.after)
					switch s.does {
					case refused:
						l.next = tripper(func(*http.Request) (*http.Response, error) { return nil, errors.New("refused") })
						_, err := l.RoundTrip(httpRequest(t, c.resource)) //nolint:bodyclose // no answer
						require.Error(t, err)
					case open:
						in = opens(t, l, c.resource)
					case end:
						require.NoError(t, in.Close())
					case bookmark:
						_, err := in.Write([]byte("{}"))
						require.NoError(t, err)
					}
					synctest.Wait()
					text, _ := l.trouble(time.Now())
					if s.since == 0 {
						assert.Empty(t, text, "step %d", i)
					} else {
						assert.True(t, strings.HasPrefix(text, "Since "+time.Now().Add(-s.since).UTC().Format("15:04:05 UTC")), "step %d: %q", i, text)
					}
				}
				if in != nil {
					in.Close()
				}
			})
		})
	}
}

// TestTimerMakesTheConsoleWarnOfBrokenWatches runs on a fake clock. No request or byte arrives at
// the instants at which a trouble begins. So only the timer of the method "heed" can wake that
// method.
func TestTimerMakesTheConsoleWarnOfBrokenWatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		warned := make(chan string, 8)
		w := &watch{links: newLinks(), warn: func(trouble string) error { warned <- trouble; return nil }, changed: make(chan struct{}, 1)}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go w.heed(ctx)
		begun := time.Now()
		in := opens(t, w.links, bookmarked)
		assert.NotEmpty(t, <-warned)
		assert.Equal(t, silentFor, time.Since(begun))
		_, err := in.Write([]byte("{}"))
		require.NoError(t, err)
		assert.Empty(t, <-warned)
		ended := time.Now()
		require.NoError(t, in.Close())
		assert.NotEmpty(t, <-warned)
		assert.Equal(t, closedFor, time.Since(ended))
		in = opens(t, w.links, bookmarked)
		assert.Empty(t, <-warned)
		assert.Equal(t, closedFor+steady, time.Since(ended))
		in.Close()
	})
}
