// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"embed"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

//go:embed page
var files embed.FS

// policy is the Content-Security-Policy of all answers. No page of the console needs an exception.
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
		case foreign(r.Header):
			http.Error(w, "the console answers no page of another site", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// loopback reports whether a Host header names the loopback.
func loopback(host string) bool {
	name := host
	if inner, _, err := net.SplitHostPort(host); err == nil {
		name = inner
	}
	if strings.EqualFold(name, "localhost") {
		return true
	}
	address, err := netip.ParseAddr(strings.Trim(name, "[]"))
	return err == nil && address.IsLoopback()
}

// foreign reports whether a browser sends the request for a page of another site. A person may
// follow a link from anywhere.
func foreign(h http.Header) bool {
	switch h.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return false
	}
	return h.Get("Sec-Fetch-Mode") != "navigate" || h.Get("Sec-Fetch-Dest") != "document"
}

// stream writes the messages of one stream until the browser or the server ends it.
func (s *Server) stream(w http.ResponseWriter, r *http.Request) {
	one, err := s.join()
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
	out := http.NewResponseController(w)
	write := func(message []byte) bool {
		_ = out.SetWriteDeadline(time.Now().Add(writeTimeout))
		_, err := w.Write(message)
		return err == nil && out.Flush() == nil
	}
	if !write([]byte("retry: 1000\n\n")) {
		return
	}
	ticker := time.NewTicker(alive)
	defer ticker.Stop()
	for {
		var message []byte
		select {
		case <-r.Context().Done():
			return
		case next, open := <-one.queue:
			if !open {
				return
			}
			message = next
		case <-ticker.C:
			message = s.alive()
		}
		if !write(message) {
			return
		}
	}
}
