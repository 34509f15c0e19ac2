// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
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
	s := view.Slot{Namespace: "shop", Slot: name, Kind: view.KindOf(name), Standbys: []*view.Standby{}, Handovers: []view.Handover{}}
	if holder != "" {
		s.Holder = &view.Holder{Pod: holder, Identity: holder + "_uid", Renewed: &noon}
	}
	return s
}

// serving returns a server whose clock stands still, and the HTTP server that serves its page.
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

func TestConsoleStreamBeginsWithStateThenHasChanges(t *testing.T) {
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

func TestReconnectedConsoleStreamBeginsWithTheWholeState(t *testing.T) {
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

func TestConsoleDropsOnlyTheSlowStream(t *testing.T) {
	s := New()
	dropped := map[string]bool{}
	joined := func(name string) *stream {
		one, err := s.join(func() { dropped[name] = true })
		require.NoError(t, err)
		return one
	}
	slow, quick := joined("slow"), joined("quick")
	for i := range maxQueue + 1 {
		require.NoError(t, s.Publish([]view.Slot{slot("lock.a", fmt.Sprint(i))}, ""))
		<-quick.queue
	}
	assert.Equal(t, map[string]bool{"slow": true}, dropped)
	assert.Equal(t, map[*stream]bool{quick: true, slow: true}, s.streams, "a handler that still writes keeps its place")
	s.leave(slow)
	s.leave(quick)
	assert.Empty(t, s.streams)
}

func TestConsoleBoundsTheQueuedBytesOfAStream(t *testing.T) {
	one := &stream{queue: make(chan message, maxQueue)}
	half := message{make([]byte, maxWaiting/2)}
	assert.True(t, one.add(half))
	assert.True(t, one.add(half))
	assert.False(t, one.add(message{[]byte("x")}))
}

// A browser that reads nothing blocks its handler until the server drops the stream.
func TestConsoleDropsBlockedStreamBeforeTheWriteTimeout(t *testing.T) {
	s, server := serving(t)
	large := slot("lock.a", "x")
	large.Yield = strings.Repeat("y", 12<<20) // more bytes than the buffers of sockets hold
	require.NoError(t, s.Publish([]view.Slot{large}, ""))
	for range 4 {
		connect(t, server, "")
	}
	s.mu.Lock()
	for one := range s.streams {
		one.drop()
	}
	s.mu.Unlock()
	assert.Eventually(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.streams) == 0
	}, writeTimeout/2, time.Millisecond)
}

// chunks is a ResponseWriter that records the sizes of the writes, and counts the deadlines.
type chunks struct {
	http.ResponseWriter

	sizes     []int
	deadlines int
}

func (c *chunks) SetWriteDeadline(time.Time) error { c.deadlines++; return nil }

func (c *chunks) Write(text []byte) (int, error) {
	c.sizes = append(c.sizes, len(text))
	return len(text), nil
}

func (c *chunks) FlushError() error { return nil }

func TestConsoleGivesEachResponseChunkAWriteTimeout(t *testing.T) {
	c := &chunks{}
	out := writer{t.Context(), c, http.NewResponseController(c)}
	require.True(t, out.write(message{[]byte("head"), make([]byte, 2*maxChunk+1)}))
	assert.Equal(t, []int{4, maxChunk, maxChunk, 1}, c.sizes)
	assert.Equal(t, 4, c.deadlines)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	assert.False(t, writer{ended, c, http.NewResponseController(c)}.write(message{[]byte("x")}))
	assert.Len(t, c.sizes, 4)
}

func TestConsoleStreamsShareTheEncodedState(t *testing.T) {
	s := New()
	body := func() *byte {
		one, err := s.join(func() {})
		require.NoError(t, err)
		defer s.leave(one)
		return &(<-one.queue)[1][0]
	}
	require.NoError(t, s.Publish([]view.Slot{slot("lock.a", "x")}, ""))
	first := body()
	require.NoError(t, s.Publish([]view.Slot{slot("lock.a", "x")}, ""), "no change")
	assert.Same(t, first, body())
	require.NoError(t, s.Publish([]view.Slot{slot("lock.a", "y")}, ""))
	assert.NotSame(t, first, body())
}

func TestConsoleBoundsTheNumberOfStreams(t *testing.T) {
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
	}, time.Minute, time.Millisecond)
	connect(t, server, "").next()
}

func TestEachAnswerHasTheSameContentSecurityPolicy(t *testing.T) {
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

func TestConsolePageHasNoInlineScriptOrStyle(t *testing.T) {
	text, err := os.ReadFile("page/index.html")
	require.NoError(t, err)
	assert.NotRegexp(t, regexp.MustCompile(`(?i)<script(?:>|[^>]*[^r]>[^<])|<style|\sstyle=|\son[a-z]+=|https?://`), string(text))
	script, err := os.ReadFile("page/console.js")
	require.NoError(t, err)
	assert.NotRegexp(t, regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|https?://`), string(script))
}

func TestConsoleAnswersOnlyRequestsForLoopbackHosts(t *testing.T) {
	s := New()
	handler := s.Handler()
	for host, status := range map[string]int{
		"127.0.0.1:4000": 200, "127.0.0.1": 200, "localhost:80": 200, "LOCALHOST": 200, "[::1]:80": 200, "[::1]": 200, "127.9.9.9:1": 200,
		"evil.example:4000": 421, "localhost.evil.example": 421, "127.0.0.1.evil.example:80": 421, "10.0.0.1": 421, "": 421, "0.0.0.0:80": 421, "[::]:80": 421,
		"]127.0.0.1[": 421, "localhost:evil": 421, "localhost:": 421, "localhost:80:80": 421, "localhost:65536": 421, "localhost:+80": 421, "[localhost]": 421,
		"::1": 421, "::1%evil.example": 421, "[::1%evil.example]:80": 421, "[::1": 421, "[::1]80": 421, "[127.0.0.1]": 421, "[::1]:evil": 421, "localhost.": 421,
	} {
		answer := httptest.NewRecorder()
		request := httptest.NewRequest(http.MethodGet, "/", nil)
		request.Host = host
		handler.ServeHTTP(answer, request)
		assert.Equal(t, status, answer.Code, "%q", host)
	}
}

func TestOtherSitesMayOnlyLinkToConsolePages(t *testing.T) {
	s := New()
	s.Docs = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	handler := s.Handler()
	ended, cancel := context.WithCancel(t.Context())
	cancel() // a stream that begins by mistake ends immediately
	for _, c := range []struct {
		path, site, mode, dest, origin string
		status                         int
	}{
		{"/", "", "", "", "", 200}, {"/", "none", "navigate", "document", "", 200}, {"/", "same-origin", "cors", "empty", "", 200},
		{"/", "cross-site", "navigate", "document", "", 200}, {"/docs/", "cross-site", "navigate", "document", "", 200},
		{"/", "cross-site", "no-cors", "script", "", 403}, {"/", "same-site", "cors", "empty", "", 403}, {"/", "cross-site", "navigate", "iframe", "", 403},
		{"/events", "cross-site", "navigate", "document", "", 403}, {"/console.js", "cross-site", "navigate", "document", "", 403},
		{"/", "", "", "", "http://localhost:4000", 200}, {"/", "same-origin", "cors", "empty", "http://localhost:4000", 200},
		{"/", "", "", "", "https://evil.example", 403}, {"/", "", "", "", "null", 403}, {"/", "", "", "", "http://localhost:4001", 403},
		{"/", "", "", "", "https://localhost:4000", 403}, {"/events", "", "", "", "https://evil.example", 403},
	} {
		answer := httptest.NewRecorder()
		request := httptest.NewRequestWithContext(ended, http.MethodGet, c.path, nil)
		request.Host = "localhost:4000"
		for name, value := range map[string]string{"Sec-Fetch-Site": c.site, "Sec-Fetch-Mode": c.mode, "Sec-Fetch-Dest": c.dest, "Origin": c.origin} {
			if value != "" {
				request.Header.Set(name, value)
			}
		}
		handler.ServeHTTP(answer, request)
		assert.Equal(t, c.status, answer.Code, c)
	}
}

func TestConsoleRefusesHTTPMethodsThatWrite(t *testing.T) {
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

func TestHEADRequestDoesNotCountAsAStream(t *testing.T) {
	s := New()
	ended, cancel := context.WithCancel(t.Context())
	cancel() // a stream that begins by mistake ends immediately
	answer := httptest.NewRecorder()
	request := httptest.NewRequestWithContext(ended, http.MethodHead, "/events", nil)
	request.Host = "localhost"
	s.Handler().ServeHTTP(answer, request)
	assert.Equal(t, http.StatusMethodNotAllowed, answer.Code)
	assert.Equal(t, http.MethodGet, answer.Header().Get("Allow"))
	assert.Empty(t, s.streams)
}

func TestBidirectionalTextNeverReordersOtherConsolePageText(t *testing.T) {
	text, err := os.ReadFile("page/console.css")
	require.NoError(t, err)
	assert.Regexp(t, regexp.MustCompile(`(?m)^\.pod, \.why, \.more, \.where, \.tag, th, td, dd, li, button \{ unicode-bidi: isolate; \}$`), string(text))
}

func TestUnencodableSlotDoesNotHideOtherSlots(t *testing.T) {
	s, server := serving(t)
	r := connect(t, server, "")
	require.NoError(t, s.Publish([]view.Slot{slot("lock.a", "x")}, ""))
	r.next()
	evil := slot("lock.b", "x")
	evil.Holder.Since = new(time.Unix(253402300800, 0)) // in the year 10000
	require.NoError(t, s.Publish([]view.Slot{slot("lock.a", "y"), evil}, ""))
	assert.Equal(t, []string{"shop/lock.a=y", "shop/lock.b=" + unreadable}, r.next().keys(t))
}

// full returns n slots of a namespace, each with a text of the given length.
func full(namespace string, n, length int) []view.Slot {
	all := make([]view.Slot, n)
	for i := range all {
		all[i] = slot(fmt.Sprintf("lock.%05d", i), "x")
		all[i].Namespace, all[i].Yield = namespace, strings.Repeat("y", length)
	}
	return all
}

func TestLargeNamespaceNeverHidesSlotsOfOtherNamespaces(t *testing.T) {
	for name, c := range map[string]struct {
		slots           []view.Slot
		greedy, modest  int
		handovers, left bool
	}{
		"a small state":              {append(full("greedy", 100, 1000), full("modest", 10, 1000)...), 100, 10, true, false},
		"many slots":                 {append(full("greedy", 40_000, 1000), full("modest", 10, 1000)...), 5000, 10, false, true},
		"two large namespaces":       {slices.Concat(full("greedy", 20_000, 1000), full("vast", 20_000, 1000), full("modest", 10, 1000)), 2000, 10, false, true},
		"one slot that is too large": {append(full("greedy", 1, maxState+1), full("modest", 10, 1000)...), 0, 10, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			for i := range c.slots {
				c.slots[i].Handovers = []view.Handover{{Pod: "b", At: noon}, {Pod: "a", At: noon}}
			}
			rows, left := rowsOf(c.slots)
			bytes, of := 0, map[string]int{}
			for key, row := range rows {
				namespace, _, _ := strings.Cut(key, "/")
				of[namespace]++
				bytes += len(row)
				if namespace == "modest" {
					assert.Contains(t, string(row), `"pod":"a"`)
				} else {
					assert.Equal(t, c.handovers, strings.Contains(string(row), `"pod":"a"`))
				}
			}
			assert.LessOrEqual(t, bytes, maxState)
			assert.Equal(t, c.modest, of["modest"])
			assert.GreaterOrEqual(t, of["greedy"], c.greedy)
			assert.Equal(t, c.left, left > 0)
			assert.Equal(t, len(c.slots), left+len(rows))
		})
	}
}

// Whoever may write Leases can put long texts into each field of a slot.
func TestEveryTextOfASlotCountsForItsNamespacesShare(t *testing.T) {
	long := strings.Repeat("<", maxState/6)
	for name, change := range map[string]func(*view.Slot){
		"why":      func(s *view.Slot) { s.Why = []string{long} },
		"talk":     func(s *view.Slot) { s.Talk = &view.Talk{Answers: []view.Said{{Pod: long}}} },
		"moved":    func(s *view.Slot) { s.Moved = &view.Moved{From: long} },
		"takeover": func(s *view.Slot) { s.Holder.Takeover = long },
	} {
		s := slot("lock.a", "x")
		change(&s)
		rows, left := rowsOf([]view.Slot{s})
		assert.Empty(t, rows, name)
		assert.Equal(t, 1, left, name)
	}
}

func TestConsolePageShowsTheNumberOfOmittedSlots(t *testing.T) {
	for _, c := range []struct {
		trouble string
		left    int
		want    string
	}{
		{"", 0, ""}, {"old", 0, "old"},
		{"", 3, "Slots that are not shown, because their namespace has too many or too large ones: 3."},
		{"Old.", 1, "Old. Slots that are not shown, because their namespace has too many or too large ones: 1."},
	} {
		assert.Equal(t, c.want, sentences(c.trouble, c.left))
	}
}

// TestConsoleStreamSendsWarningsBeforeFirstSlotState warns before and after the first state.
func TestConsoleStreamSendsWarningsBeforeFirstSlotState(t *testing.T) {
	s, server := serving(t)
	early := connect(t, server, "")
	const begins = `{"now":"2026-11-23T12:00:00Z","trouble":"closed"}`
	require.NoError(t, s.Warn("closed"))
	assert.Equal(t, event{"", "alive", begins}, early.next())
	assert.Contains(t, string(bytes.Join(s.alive(), nil)), begins, "an idle stream repeats the trouble")
	require.NoError(t, s.Publish([]view.Slot{slot("lock.a", "x")}, ""))
	assert.Equal(t, "state", early.next().name)
	require.NoError(t, s.Warn("closed"))
	assert.Equal(t, event{"2", "change", begins}, early.next())
	require.NoError(t, s.Warn("closed"))
	require.NoError(t, s.Warn(""))
	assert.Equal(t, event{"3", "change", `{"now":"2026-11-23T12:00:00Z","trouble":""}`}, early.next(), "a repeated trouble is no change")
}
