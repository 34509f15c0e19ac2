// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package listingtest answers lists as an old API server does.
package listingtest

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
)

// Server answers as an API server of Kubernetes 1.33, which streams no lists, and ignores the limit of
// a list from its watch cache. The watches of a Server send nothing.
type Server struct {
	// URL is the address of the Server.
	URL string

	t *testing.T
	// lists has the whole list of each kind, by the path of its requests.
	lists map[string]runtime.Object

	mu      sync.Mutex
	sizes   []int
	streams int
}

// Start starts a Server with the lists of the given paths, until the end of the test.
func Start(t *testing.T, lists map[string]runtime.Object) *Server {
	t.Helper()
	s := &Server{t: t, lists: lists}
	host := httptest.NewServer(s)
	t.Cleanup(host.Close)
	t.Cleanup(host.CloseClientConnections)
	s.URL = host.URL
	return s
}

// Sizes returns the numbers of objects in the answers so far.
func (s *Server) Sizes() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.sizes)
}

// Streams returns the number of requests for a stream so far.
func (s *Server) Streams() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.streams
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	whole := s.lists[r.URL.Path]
	w.Header().Set("Content-Type", "application/json")
	switch {
	case whole == nil:
		w.WriteHeader(http.StatusNotFound)
	case query.Get("sendInitialEvents") != "":
		s.mu.Lock()
		s.streams++
		s.mu.Unlock()
		w.WriteHeader(http.StatusUnprocessableEntity)
	case query.Get("watch") != "":
		w.WriteHeader(http.StatusOK)
		assert.NoError(s.t, http.NewResponseController(w).Flush())
		<-r.Context().Done()
	default:
		from, _ := strconv.Atoi(query.Get("continue"))
		limit, _ := strconv.Atoi(query.Get("limit"))
		if query.Get("resourceVersion") == "0" {
			limit = 0
		}
		_, _ = w.Write(s.page(whole, from, limit)) // a client hangs up on a page that is too large
	}
}

// page returns one page of the list. The limit zero stands for all objects.
func (s *Server) page(whole runtime.Object, from, limit int) []byte {
	objects, err := meta.ExtractList(whole)
	assert.NoError(s.t, err)
	to := len(objects)
	if limit > 0 {
		to = min(from+limit, to)
	}
	list := whole.DeepCopyObject()
	assert.NoError(s.t, meta.SetList(list, objects[from:to]))
	about, err := meta.ListAccessor(list)
	assert.NoError(s.t, err)
	about.SetResourceVersion("7")
	if to < len(objects) {
		about.SetContinue(strconv.Itoa(to))
	}
	raw, err := runtime.Encode(scheme.Codecs.LegacyCodec(scheme.Scheme.PrioritizedVersionsAllGroups()...), list)
	assert.NoError(s.t, err)
	s.mu.Lock()
	s.sizes = append(s.sizes, to-from)
	s.mu.Unlock()
	return raw
}
