// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// frame returns one line of a watch.
func frame(kind WatchType, resourceVersion string) string {
	return `{"type":"` + string(kind) + `","object":{"kind":"Lease","metadata":{"name":"biller","uid":"u-1",` +
		`"resourceVersion":"` + resourceVersion + `"},"spec":{"holderIdentity":"h` + resourceVersion + `"}}}` + "\n"
}

const bookmark = `{"type":"BOOKMARK","object":{"kind":"Lease","metadata":{"resourceVersion":"50","creationTimestamp":null},"spec":{}}}` + "\n"

// collect watches a Lease, and returns the events. The server sends the argument "body", and then
// ends the stream without an error.
func collect(t *testing.T, body string) (seen []string, err error) {
	t.Helper()
	err = serve(t, http.StatusOK, body).WatchLease(t.Context(), "biller", "41", func(e WatchEvent) {
		text := string(e.Type) + " " + e.ResourceVersion
		if e.Lease != nil {
			text += " " + e.Lease.Holder
		}
		seen = append(seen, text)
	})
	return seen, err
}

func TestWatchSelectsOneLeaseAndLastsForHours(t *testing.T) {
	var query url.Values
	client := newServer(t, func(_ http.ResponseWriter, r *http.Request) {
		assert.Equal(t, "/apis/coordination.k8s.io/v1/namespaces/shop/leases", r.URL.Path)
		query = r.URL.Query()
	}).client(t)
	require.NoError(t, client.WatchLease(t.Context(), "biller", "41", nil))
	seconds, err := strconv.Atoi(query.Get("timeoutSeconds"))
	require.NoError(t, err)
	assert.GreaterOrEqual(t, seconds, 6*3600)
	assert.LessOrEqual(t, seconds, 12*3600)
	query.Del("timeoutSeconds")
	assert.Equal(t, url.Values{
		"watch": {"1"}, "allowWatchBookmarks": {"true"},
		"fieldSelector": {"metadata.name=biller"}, "resourceVersion": {"41"},
	}, query)
}

func TestWatchDeliversEachEvent(t *testing.T) {
	seen, err := collect(t, frame(Added, "42")+frame(Modified, "43")+bookmark+frame(Deleted, "51"))
	require.NoError(t, err)
	assert.Equal(t, []string{"ADDED 42 h42", "MODIFIED 43 h43", "BOOKMARK 50", "DELETED 51 h51"}, seen)
}

// The watch delivers the events before the fault, and no event after it.
func TestWatchEndsAtFirstErrorOrMalformedEvent(t *testing.T) {
	for name, c := range map[string]struct {
		fault string
		is    error
	}{
		"error event with 410":         {`{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old resource version"}}`, ErrGone},
		"error event with 403":         {`{"type":"ERROR","object":{"kind":"Status","code":403}}`, ErrForbidden},
		"error event without a status": {`{"type":"ERROR","object":"text"}`, ErrMalformed},
		"unknown type":                 {`{"type":"RENAMED","object":{}}`, ErrMalformed},
		"no type":                      {`{}`, ErrMalformed},
		"event of a Pod":               {`{"type":"MODIFIED","object":{"kind":"Pod"}}`, ErrMalformed},
		"another lease":                {strings.ReplaceAll(frame(Modified, "44"), "biller", "other"), ErrMalformed},
		"bookmark without a version":   {`{"type":"BOOKMARK","object":{}}`, ErrMalformed},
		"truncated frame":              {frame(Modified, "44")[:50], io.ErrUnexpectedEOF},
		"huge frame":                   {`{"type":"MODIFIED","object":"` + strings.Repeat("x", 2*maxBody) + `"}`, ErrTooLarge},
		"garbage":                      {"<html>", nil},
		"binary":                       {"\x00\xff", nil},
	} {
		t.Run(name, func(t *testing.T) {
			after := "\n" + frame(Modified, "45")
			if errors.Is(c.is, io.ErrUnexpectedEOF) {
				after = ""
			}
			seen, err := collect(t, frame(Modified, "43")+c.fault+after)
			require.Error(t, err)
			if c.is != nil {
				require.ErrorIs(t, err, c.is)
			}
			assert.Equal(t, []string{"MODIFIED 43 h43"}, seen)
		})
	}
}

func TestRefusedWatchReturnsErrorForItsHTTPStatus(t *testing.T) {
	for status, want := range map[int]error{410: ErrGone, 401: ErrUnauthorized, 403: ErrForbidden, 429: ErrTooManyRequests} {
		err := serve(t, status, `{}`).WatchLease(t.Context(), "biller", "41", nil)
		assert.ErrorIs(t, err, want)
	}
}

// The size limit, [maxBody], applies to each frame, and not to a whole watch, because a watch lasts
// for hours.
func TestWatchMayExceedSizeLimitOfOneEvent(t *testing.T) {
	one := frame(Modified, "43")
	count := 2*maxBody/len(one) + 1
	seen := 0
	require.NoError(t, readWatch(strings.NewReader(strings.Repeat(one, count)), leaseEvents("biller", func(WatchEvent) { seen++ })))
	assert.Equal(t, count, seen)
}

func TestBrokenWatchReturnsAnError(t *testing.T) {
	client := newServer(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, frame(Modified, "43"))
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}).client(t)
	seen := 0
	err := client.WatchLease(t.Context(), "biller", "41", func(WatchEvent) { seen++ })
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	assert.Equal(t, 1, seen)
}

func TestWatchEndsWithItsContext(t *testing.T) {
	client := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, frame(Modified, "43"))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}).client(t)
	ctx, cancel := context.WithCancel(t.Context())
	err := client.WatchLease(ctx, "biller", "41", func(WatchEvent) { cancel() })
	assert.ErrorIs(t, err, context.Canceled)
}

// A request gets its own connection while a watch is open, and the watch
// continues.
func TestWatchHasAConnectionOfItsOwn(t *testing.T) {
	proceed := make(chan struct{})
	client := newServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("watch") {
			_, _ = io.WriteString(w, frame(Modified, "43"))
			_ = http.NewResponseController(w).Flush()
			<-proceed
			_, _ = io.WriteString(w, frame(Modified, "44"))
			return
		}
		_, _ = io.WriteString(w, foreign)
	}).client(t)
	var seen []string
	require.NoError(t, client.WatchLease(t.Context(), "biller", "41", func(e WatchEvent) {
		seen = append(seen, e.ResourceVersion)
		if len(seen) == 1 {
			_, err := client.GetLease(t.Context(), "biller")
			assert.NoError(t, err)
			close(proceed)
		}
	}))
	assert.Equal(t, []string{"43", "44"}, seen)
}

// FuzzEveryWatchEventHasAResourceVersion checks that each event has a resourceVersion from
// which a watch can resume. A stream without an event and without an error must have been
// empty.
func FuzzEveryWatchEventHasAResourceVersion(f *testing.F) {
	f.Add([]byte(frame(Added, "42") + bookmark + frame(Deleted, "51")))
	f.Add([]byte(`{"type":"ERROR","object":{"code":410}}`))
	f.Add([]byte("garbage\n" + frame(Modified, "1")))
	f.Fuzz(func(t *testing.T, data []byte) {
		events := 0
		err := readWatch(bytes.NewReader(data), leaseEvents("biller", func(e WatchEvent) {
			events++
			require.NotEmpty(t, e.ResourceVersion)
			require.Equal(t, e.Type == Bookmark, e.Lease == nil)
		}))
		if err == nil && events == 0 {
			require.Empty(t, bytes.TrimSpace(data))
		}
	})
}
