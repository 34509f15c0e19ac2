// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/console/view"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// slot returns a slot of the namespace shop. Without a holder the slot is free.
func slot(name, holder string) view.Slot {
	s := view.Slot{Namespace: "shop", Slot: name, Kind: view.KindOf(name), Standbys: []view.Standby{}, Handovers: []view.Handover{}}
	if holder != "" {
		s.Holder = &view.Holder{Pod: holder, Identity: holder + "_uid", Renewed: &noon}
	}
	return s
}

// serving returns a server with a clock that stands still, and its address.
func serving(t *testing.T) (*Server, *httptest.Server) {
	t.Helper()
	s := New()
	s.Now = func() time.Time { return noon }
	server := httptest.NewServer(s.Handler())
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections)
	return s, server
}

// event is a message of a stream.
type event struct{ id, name, data string }

// reader reads the messages of one stream.
type reader struct {
	t     *testing.T
	lines *bufio.Reader
	close func()
}

// connect opens a stream.
func connect(t *testing.T, server *httptest.Server, lastID string) *reader {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/events", nil)
	require.NoError(t, err)
	if lastID != "" {
		request.Header.Set("Last-Event-ID", lastID)
	}
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	t.Cleanup(func() { response.Body.Close() })
	require.Equal(t, http.StatusOK, response.StatusCode)
	assert.Equal(t, "text/event-stream", response.Header.Get("Content-Type"))
	return &reader{t, bufio.NewReader(response.Body), cancel}
}

// next returns the next message with data.
func (r *reader) next() (e event) {
	r.t.Helper()
	for {
		line, err := r.lines.ReadString('\n')
		require.NoError(r.t, err)
		field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch field {
		case "id":
			e.id = value
		case "event":
			e.name = value
		case "data":
			e.data = value
		case "":
			if e.data != "" {
				return e
			}
		}
	}
}

// keys returns the slots of a message, as KEY=HOLDER, and the slots that are gone, as -KEY.
func (e event) keys(t *testing.T) (keys []string) {
	t.Helper()
	var message struct {
		Slots []struct {
			Key    string
			Holder *view.Holder
		}
		Gone []string
	}
	require.NoError(t, json.Unmarshal([]byte(e.data), &message))
	for _, s := range message.Slots {
		holder := ""
		if s.Holder != nil {
			holder = s.Holder.Pod
		}
		keys = append(keys, s.Key+"="+holder)
	}
	for _, key := range message.Gone {
		keys = append(keys, "-"+key)
	}
	return keys
}

func TestStreamBeginsWithTheStateThenHasChanges(t *testing.T) {
	s, server := serving(t)
	early := connect(t, server, "")
	require.NoError(t, s.Publish([]view.Slot{slot("lock.a", "x"), slot("lock.b", "")}, ""))
	first := early.next()
	assert.Equal(t, "state", first.name)
	assert.Equal(t, []string{"shop/lock.a=x", "shop/lock.b="}, first.keys(t))

	require.NoError(t, s.Publish([]view.Slot{slot("lock.a", "x"), slot("lock.b", "")}, ""), "no change, no message")
	renewed := slot("lock.a", "x")
	renewed.Holder.Renewed = new(noon.Add(time.Second))
	require.NoError(t, s.Publish([]view.Slot{renewed, slot("lock.b", "")}, ""), "a renewal is no change")
	require.NoError(t, s.Publish([]view.Slot{slot("lock.a", "y")}, ""))
	second := early.next()
	assert.Equal(t, "change", second.name)
	assert.Equal(t, []string{"shop/lock.a=y", "-shop/lock.b"}, second.keys(t))
	require.NoError(t, s.Publish([]view.Slot{slot("lock.a", "y")}, "old"))
	assert.Contains(t, early.next().data, `"trouble":"old"`)
}

func TestReconnectedStreamBeginsWithTheWholeState(t *testing.T) {
	s, server := serving(t)
	require.NoError(t, s.Publish([]view.Slot{slot("lock.a", "x")}, ""))
	before := connect(t, server, "")
	id := before.next().id
	before.close()
	require.NoError(t, s.Publish([]view.Slot{slot("lock.a", "y"), slot("lock.b", "")}, ""))
	again := connect(t, server, id).next()
	assert.Equal(t, "state", again.name)
	assert.NotEqual(t, id, again.id)
	assert.Equal(t, []string{"shop/lock.a=y", "shop/lock.b="}, again.keys(t))
}

func TestSlowReaderIsDroppedAndOthersAreNot(t *testing.T) {
	s := New()
	slow, err := s.join()
	require.NoError(t, err)
	quick, err := s.join()
	require.NoError(t, err)
	for i := range maxQueue + 1 {
		require.NoError(t, s.Publish([]view.Slot{slot("lock.a", fmt.Sprint(i))}, ""))
		<-quick.queue
	}
	for range maxQueue {
		<-slow.queue
	}
	_, open := <-slow.queue
	assert.False(t, open)
	assert.Equal(t, map[*stream]bool{quick: true}, s.streams)
	s.leave(slow)
	s.leave(quick)
	assert.Empty(t, s.streams)
}

// A stream whose queue was closed ends, and gives its place back.
func TestDroppedStreamEndsItsConnection(t *testing.T) {
	s, server := serving(t)
	require.NoError(t, s.Publish(nil, ""))
	r := connect(t, server, "")
	r.next()
	s.mu.Lock()
	for one := range s.streams {
		close(one.queue)
		delete(s.streams, one)
	}
	s.mu.Unlock()
	_, err := io.ReadAll(r.lines)
	assert.NoError(t, err, "the end of the answer")
}

func TestNumberOfStreamsIsBounded(t *testing.T) {
	s, server := serving(t)
	require.NoError(t, s.Publish(nil, ""))
	var first *reader
	for range maxStreams {
		r := connect(t, server, "")
		r.next()
		if first == nil {
			first = r
		}
	}
	response, err := http.Get(server.URL + "/events")
	require.NoError(t, err)
	response.Body.Close()
	assert.Equal(t, http.StatusServiceUnavailable, response.StatusCode)
	first.close()
	assert.Eventually(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.streams) == maxStreams-1
	}, 10*time.Second, time.Millisecond)
	connect(t, server, "").next()
}

func TestEachAnswerHasThePolicyWithoutExceptions(t *testing.T) {
	s := New()
	s.Docs = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.Path) })
	handler := s.Handler()
	for path, status := range map[string]int{"/": 200, "/console.js": 200, "/console.css": 200, "/icon.svg": 200, "/docs/a": 200, "/nothing": 404} {
		answer := httptest.NewRecorder()
		request := httptest.NewRequest(http.MethodGet, path, nil)
		request.Host = "127.0.0.1:4000"
		handler.ServeHTTP(answer, request)
		assert.Equal(t, status, answer.Code, path)
		assert.Equal(t, "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
			answer.Header().Get("Content-Security-Policy"), path)
		assert.Equal(t, "nosniff", answer.Header().Get("X-Content-Type-Options"), path)
		if status == http.StatusOK {
			assert.Equal(t, "no-store", answer.Header().Get("Cache-Control"), path)
		}
	}
	assert.NotContains(t, policy, "unsafe")
}

func TestPageHasNoInlineScriptOrStyle(t *testing.T) {
	text, err := os.ReadFile("page/index.html")
	require.NoError(t, err)
	assert.NotRegexp(t, regexp.MustCompile(`(?i)<script(?:>|[^>]*[^r]>[^<])|<style|\sstyle=|\son[a-z]+=|https?://`), string(text))
	script, err := os.ReadFile("page/console.js")
	require.NoError(t, err)
	assert.NotRegexp(t, regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|https?://`), string(script))
}

func TestOnlyLoopbackNamesAreAnswered(t *testing.T) {
	s := New()
	handler := s.Handler()
	for host, status := range map[string]int{
		"127.0.0.1:4000": 200, "127.0.0.1": 200, "localhost:80": 200, "LOCALHOST": 200, "[::1]:80": 200, "[::1]": 200, "127.9.9.9:1": 200,
		"evil.example:4000": 421, "localhost.evil.example": 421, "127.0.0.1.evil.example:80": 421, "10.0.0.1": 421, "": 421, "0.0.0.0:80": 421, "[::]:80": 421,
	} {
		answer := httptest.NewRecorder()
		request := httptest.NewRequest(http.MethodGet, "/", nil)
		request.Host = host
		handler.ServeHTTP(answer, request)
		assert.Equal(t, status, answer.Code, "%q", host)
	}
}

func TestPagesOfOtherSitesAreRefused(t *testing.T) {
	handler := New().Handler()
	for _, c := range []struct {
		site, mode, dest string
		status           int
	}{
		{"", "", "", 200}, {"none", "navigate", "document", 200}, {"same-origin", "cors", "empty", 200},
		{"cross-site", "navigate", "document", 200},
		{"cross-site", "no-cors", "script", 403}, {"same-site", "cors", "empty", 403}, {"cross-site", "navigate", "iframe", 403},
	} {
		answer := httptest.NewRecorder()
		request := httptest.NewRequest(http.MethodGet, "/", nil)
		request.Host = "localhost"
		for name, value := range map[string]string{"Sec-Fetch-Site": c.site, "Sec-Fetch-Mode": c.mode, "Sec-Fetch-Dest": c.dest} {
			if value != "" {
				request.Header.Set(name, value)
			}
		}
		handler.ServeHTTP(answer, request)
		assert.Equal(t, c.status, answer.Code, c)
	}
}

func TestConsoleAcceptsOnlyReads(t *testing.T) {
	handler := New().Handler()
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		for _, path := range []string{"/", "/events"} {
			answer := httptest.NewRecorder()
			request := httptest.NewRequest(method, path, nil)
			request.Host = "localhost"
			handler.ServeHTTP(answer, request)
			assert.Equal(t, http.StatusMethodNotAllowed, answer.Code, "%s %s", method, path)
		}
	}
}
