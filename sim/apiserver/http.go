// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/metaparticle-io/metaparticle/agent/kube"
)

// ServeHTTP serves the Leases to a real agent: reads, writes and watches. Each other request gets the
// status 404.
func (s *Scripted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	const leases = "/leases"
	c, name := s.Client("http"), r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	switch {
	case r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, leases):
		s.stream(c, w, r)
	case r.Method == http.MethodGet && strings.Contains(r.URL.Path, leases):
		answerWith(w)(c.GetLease(r.Context(), name))
	case r.Method == http.MethodPut && strings.Contains(r.URL.Path, leases):
		l := new(kube.Lease)
		if err := json.NewDecoder(r.Body).Decode(l); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		answerWith(w)(c.UpdateLease(r.Context(), l))
	default:
		http.NotFound(w, r)
	}
}

// answerWith writes a Lease, or the status of the error.
func answerWith(w http.ResponseWriter) func(l *kube.Lease, err error) {
	return func(l *kube.Lease, err error) {
		if err == nil {
			_ = json.NewEncoder(w).Encode(l)
			return
		}
		code := http.StatusServiceUnavailable
		if status, ok := errors.AsType[*kube.StatusError](err); ok {
			code = status.Code
		}
		http.Error(w, err.Error(), code)
	}
}

// stream answers a watch of one Lease.
func (s *Scripted) stream(c *Client, w http.ResponseWriter, r *http.Request) {
	name, ok := strings.CutPrefix(r.FormValue("fieldSelector"), "metadata.name=")
	if !ok || r.FormValue("watch") == "" {
		http.Error(w, r.URL.String(), http.StatusBadRequest)
		return
	}
	flush := w.(http.Flusher).Flush
	flush()
	_ = c.WatchLease(r.Context(), name, r.FormValue("resourceVersion"), func(e kube.WatchEvent) {
		_ = json.NewEncoder(w).Encode(map[string]any{"type": e.Type, "object": e.Lease})
		flush()
	})
}
