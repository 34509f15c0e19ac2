// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"

	"github.com/metaparticle-io/metaparticle/api"
)

// leases is the path of the Leases of the only namespace.
const leases = "/apis/coordination.k8s.io/v1/namespaces/shop/leases"

// server is a minimal API server with the Lease of one lock.
type server struct {
	mu      sync.Mutex
	version int
	lease   map[string]any
	changed chan struct{} // closed and replaced at each change
}

// serve serves the Lease, writes the credentials of an agent into the directory, and returns
// the environment of that agent.
func serve(dir string) ([]string, error) {
	s := &server{version: 1, changed: make(chan struct{}), lease: map[string]any{
		"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
		"metadata": map[string]any{"name": "lock.a", "namespace": "shop", "uid": "u", "resourceVersion": "1"}, "spec": map[string]any{},
	}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+leases+"/lock.a", s.get)
	mux.HandleFunc("PUT "+leases+"/lock.a", s.put)
	mux.HandleFunc("GET "+leases, s.watch)
	of := httptest.NewTLSServer(mux)
	host, port, err := net.SplitHostPort(of.Listener.Addr().String())
	if err != nil {
		return nil, err
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: of.Certificate().Raw})
	for name, text := range map[string][]byte{"ca.crt": ca, "token": []byte("secret")} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return nil, err
		}
	}
	return append(os.Environ(), "KUBERNETES_SERVICE_HOST="+host, "KUBERNETES_SERVICE_PORT="+port,
		api.PodNamespaceEnv+"=shop", api.PodNameEnv+"=web-0", api.PodUIDEnv+"=u-1", api.PodIPEnv+"=10.0.0.1"), nil
}

func (s *server) get(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = json.NewEncoder(w).Encode(s.lease)
}

func (s *server) put(w http.ResponseWriter, r *http.Request) {
	var next map[string]any
	if err := json.NewDecoder(r.Body).Decode(&next); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	metadata := next["metadata"].(map[string]any)
	if metadata["resourceVersion"] != fmt.Sprint(s.version) {
		w.WriteHeader(http.StatusConflict)
		return
	}
	s.version++
	metadata["resourceVersion"] = fmt.Sprint(s.version)
	s.lease = next
	close(s.changed)
	s.changed = make(chan struct{})
	_ = json.NewEncoder(w).Encode(s.lease)
}

// watch sends the present Lease after each change.
func (s *server) watch(w http.ResponseWriter, r *http.Request) {
	from := r.FormValue("resourceVersion")
	for {
		s.mu.Lock()
		lease, version, changed := s.lease, fmt.Sprint(s.version), s.changed
		s.mu.Unlock()
		if version != from {
			_ = json.NewEncoder(w).Encode(map[string]any{"type": "MODIFIED", "object": lease})
			from = version
		}
		w.(http.Flusher).Flush()
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}
