// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"context"
	"embed"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

//go:embed page
var files embed.FS

// policy is the Content-Security-Policy of all answers, except those of the documentation. The
// handler of the documentation replaces the policy. No page of the console needs an exception.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Handler returns the handler of the page, of its stream, and of the documentation.
func (s *Server) Handler() http.Handler {
	page, err := fs.Sub(files, "page")
	if err != nil {
		panic(err) // the folder is part of the program
	}
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServerFS(page))
	mux.HandleFunc("GET /events", s.stream)
	mux.HandleFunc("HEAD /events", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Allow", http.MethodGet) // a HEAD request would take the place of a stream, and get nothing
		http.Error(w, "read the stream with GET", http.StatusMethodNotAllowed)
	})
	if s.Docs != nil {
		mux.Handle("GET /docs/", s.Docs)
	}
	return guarded(mux)
}

// guarded adds the headers of all answers, and refuses requests of other sites.
func guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		switch {
		case !loopback(r.Host):
			http.Error(w, "the console answers only under a loopback name", http.StatusMisdirectedRequest)
		case foreign(r):
			http.Error(w, "the console answers no page of another site", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// loopback reports whether a Host header names the loopback: localhost or an address, and perhaps a
// port.
func loopback(host string) bool {
	name, port, more := strings.Cut(host, ":")
	if inner, ok := strings.CutPrefix(host, "["); ok {
		var after string
		if name, after, ok = strings.Cut(inner, "]"); !ok || !strings.Contains(name, ":") {
			return false
		}
		if port, more = strings.CutPrefix(after, ":"); !more && after != "" {
			return false
		}
	}
	if _, err := strconv.ParseUint(port, 10, 16); more && err != nil {
		return false
	}
	if strings.EqualFold(name, "localhost") {
		return true
	}
	address, err := netip.ParseAddr(name)
	return err == nil && address.IsLoopback() && address.Zone() == ""
}

// foreign reports whether a page of another site made the browser send the request. A link on any
// site may lead to a page of the console, so a click on such a link is not foreign.
func foreign(r *http.Request) bool {
	if origins, sent := r.Header["Origin"]; sent && !slices.Equal(origins, []string{"http://" + r.Host}) {
		return true
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return false
	}
	page := r.URL.Path == "/" || strings.HasPrefix(r.URL.Path, "/docs/")
	return !page || r.Header.Get("Sec-Fetch-Mode") != "navigate" || r.Header.Get("Sec-Fetch-Dest") != "document"
}

// stream writes the messages of one stream until the browser or the server ends it.
func (s *Server) stream(w http.ResponseWriter, r *http.Request) {
	ctx, drop := context.WithCancel(r.Context())
	defer drop()
	one, err := s.join(drop)
	switch {
	case err != nil:
		http.Error(w, "the state cannot be encoded", http.StatusInternalServerError)
		return
	case one == nil:
		w.Header().Set("Retry-After", "10")
		http.Error(w, fmt.Sprintf("the console serves at most %d streams", maxStreams), http.StatusServiceUnavailable)
		return
	}
	defer s.leave(one)
	w.Header().Set("Content-Type", "text/event-stream")
	out := writer{ctx, w, http.NewResponseController(w)}
	stop := context.AfterFunc(ctx, out.interrupt)
	defer stop()
	if !out.write(message{[]byte("retry: 1000\n\n")}) {
		return
	}
	ticker := time.NewTicker(alive)
	defer ticker.Stop()
	for {
		var next message
		select {
		case <-ctx.Done():
			return
		case next = <-one.queue:
			one.waiting.Add(-next.size())
		case <-ticker.C:
			next = s.alive()
		}
		if !out.write(next) {
			return
		}
	}
}

// writer writes messages to one browser until ctx ends.
type writer struct {
	ctx  context.Context
	out  io.Writer
	with *http.ResponseController
}

// write writes a message in chunks, and reports whether the browser took all chunks in time.
func (o writer) write(m message) bool {
	for _, part := range m {
		for chunk := range slices.Chunk(part, maxChunk) {
			_ = o.with.SetWriteDeadline(time.Now().Add(writeTimeout))
			if o.ctx.Err() != nil { // checked after SetWriteDeadline, because that call may have undone an interruption
				return false
			}
			if _, err := o.out.Write(chunk); err != nil || o.with.Flush() != nil {
				return false
			}
		}
	}
	return true
}

// interrupt ends a write that waits for the browser.
func (o writer) interrupt() { _ = o.with.SetWriteDeadline(time.Unix(1, 0)) }
