// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// object is one stored state of a Kubernetes object.
type object struct {
	metadata metav1.ObjectMeta
	raw      []byte
}

// change is one entry of the server's log. Each watch follows this log.
type change struct {
	collection string
	kind       string
	*object
}

// server stores objects by their collection and name, and streams changes. The server
// supports one namespace, labels and resource versions, and sets no defaults.
type server struct {
	mu      sync.Mutex
	grown   chan struct{}
	objects map[string]map[string]*object
	log     []change
}

// serve prints the server's address, and answers until the process is killed.
func serve(slots string) error {
	n, err := strconv.Atoi(slots)
	if err != nil {
		return err
	}
	s := &server{grown: make(chan struct{}), objects: map[string]map[string]*object{}}
	if err := s.prepare(n); err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Printf("http://%s\n", listener.Addr())
	return (&http.Server{Handler: s, ReadHeaderTimeout: time.Minute}).Serve(listener)
}

// ServeHTTP implements http.Handler.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	collection, name := route(r.URL.Path)
	switch {
	case r.Method == http.MethodGet && name != "":
		s.get(w, collection, name)
	case r.Method == http.MethodGet && r.URL.Query().Has("watch"):
		s.watch(w, r, collection)
	case r.Method == http.MethodGet:
		s.list(w, r, collection)
	default:
		s.write(w, r, collection, name)
	}
}

// route returns the collection and the object's name from a path, and ignores the namespace.
func route(path string) (collection, name string) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	group := 2 // the number of words before the resource: api and v1 in the path api/v1/pods
	if parts[0] == "apis" {
		group = 3
	}
	rest := parts[group:]
	if len(rest) > 2 && rest[0] == "namespaces" {
		rest = rest[2:]
	}
	if len(rest) > 1 {
		name = rest[1]
	}
	return strings.Join(parts[1:group], "/") + " " + rest[0], name
}

func (s *server) get(w http.ResponseWriter, collection, name string) {
	s.mu.Lock()
	o := s.objects[collection][name]
	s.mu.Unlock()
	if o == nil {
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound)
		return
	}
	answer(w, o.raw)
}

func (s *server) list(w http.ResponseWriter, r *http.Request, collection string) {
	selected, version := s.selected(r, collection)
	var b strings.Builder
	apiVersion, _, _ := strings.Cut(collection, " ")
	fmt.Fprintf(&b, `{"kind":"%sList","apiVersion":%q,"metadata":{"resourceVersion":"%d"},"items":[`, kinds[collection], apiVersion, version)
	for i, o := range selected {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(o.raw)
	}
	b.WriteString("]}")
	answer(w, []byte(b.String()))
}

// selected returns the objects that a request selects, and the server's present resource version.
func (s *server) selected(r *http.Request, collection string) ([]*object, int) {
	matches := matcher(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	var selected []*object
	for _, o := range s.objects[collection] {
		if matches(o) {
			selected = append(selected, o)
		}
	}
	slices.SortFunc(selected, func(a, b *object) int { return strings.Compare(a.metadata.Name, b.metadata.Name) })
	return selected, len(s.log)
}

func matcher(r *http.Request) func(*object) bool {
	selector, err := labels.Parse(r.URL.Query().Get("labelSelector"))
	if err != nil {
		selector = labels.Nothing()
	}
	return func(o *object) bool { return selector.Matches(labels.Set(o.metadata.Labels)) }
}

// watch streams changes. If the request asks for the existing objects, watch sends them first.
func (s *server) watch(w http.ResponseWriter, r *http.Request, collection string) {
	query, matches := r.URL.Query(), matcher(r)
	from, _ := strconv.Atoi(query.Get("resourceVersion"))
	w.Header().Set("Content-Type", "application/json")
	flush := http.NewResponseController(w).Flush
	send := func(kind string, raw []byte) { fmt.Fprintf(w, "{\"type\":%q,\"object\":%s}\n", kind, raw) }
	if query.Get("sendInitialEvents") == "true" {
		var all []*object
		all, from = s.selected(r, collection)
		for _, o := range all {
			send("ADDED", o.raw)
		}
		kind, apiVersion := kinds[collection], strings.Split(collection, " ")[0]
		send("BOOKMARK", fmt.Appendf(nil, `{"kind":%q,"apiVersion":%q,"metadata":{"resourceVersion":"%d","annotations":{%q:"true"}}}`,
			kind, apiVersion, from, metav1.InitialEventsAnnotationKey))
	}
	for {
		if flush() != nil {
			return
		}
		s.mu.Lock()
		news, grown := s.log[from:], s.grown
		s.mu.Unlock()
		from += len(news)
		for _, c := range news {
			if c.collection == collection && matches(c.object) {
				send(c.kind, c.raw)
			}
		}
		if len(news) > 0 {
			continue
		}
		select {
		case <-grown:
		case <-r.Context().Done():
			return
		}
	}
}

// write creates, updates and deletes objects, by compare-and-swap.
func (s *server) write(w http.ResponseWriter, r *http.Request, collection, name string) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		refuse(w, http.StatusBadRequest, metav1.StatusReasonBadRequest)
		return
	}
	var sent struct {
		Metadata      metav1.ObjectMeta     `json:"metadata"`
		Preconditions *metav1.Preconditions `json:"preconditions"`
	}
	if err := json.Unmarshal(body, &sent); err != nil {
		refuse(w, http.StatusBadRequest, metav1.StatusReasonBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Method == http.MethodPost {
		name = sent.Metadata.Name
	}
	there := s.objects[collection][name]
	switch {
	case r.Method == http.MethodPost && there != nil:
		refuse(w, http.StatusConflict, metav1.StatusReasonAlreadyExists)
	case r.Method == http.MethodPost:
		answer(w, s.store(collection, "ADDED", body).raw)
	case there == nil:
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound)
	case r.Method == http.MethodPut && sent.Metadata.ResourceVersion == there.metadata.ResourceVersion:
		answer(w, s.store(collection, "MODIFIED", body).raw)
	case r.Method == http.MethodDelete && *sent.Preconditions.ResourceVersion == there.metadata.ResourceVersion:
		s.store(collection, "DELETED", there.raw)
		answer(w, there.raw)
	default:
		refuse(w, http.StatusConflict, metav1.StatusReasonConflict)
	}
}

// store adds, replaces or removes an object under a new resource version. The argument "kind" is
// the type of the watch event, such as "ADDED". An object without a uid gets a new uid. The caller
// has locked s.mu.
func (s *server) store(collection, kind string, raw []byte) *object {
	var all map[string]any
	var meta struct {
		Metadata metav1.ObjectMeta `json:"metadata"`
	}
	for _, into := range []any{&all, &meta} {
		if err := json.Unmarshal(raw, into); err != nil {
			panic(err)
		}
	}
	version := strconv.Itoa(len(s.log) + 1)
	metadata := all["metadata"].(map[string]any)
	metadata["resourceVersion"] = version
	meta.Metadata.ResourceVersion = version
	if meta.Metadata.UID == "" {
		metadata["uid"] = fmt.Sprintf("00000000-0000-4000-8000-%012s", version)
	}
	all["apiVersion"], all["kind"] = strings.Split(collection, " ")[0], kinds[collection]
	encoded, err := json.Marshal(all)
	if err != nil {
		panic(err)
	}
	o := &object{metadata: meta.Metadata, raw: encoded}
	if s.objects[collection] == nil {
		s.objects[collection] = map[string]*object{}
	}
	if kind == "DELETED" {
		delete(s.objects[collection], o.metadata.Name)
	} else {
		s.objects[collection][o.metadata.Name] = o
	}
	s.log = append(s.log, change{collection, kind, o})
	close(s.grown)
	s.grown = make(chan struct{})
	return o
}

func answer(w http.ResponseWriter, raw []byte) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(raw)
}

func refuse(w http.ResponseWriter, code int32, reason metav1.StatusReason) {
	raw, err := json.Marshal(metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure, Code: code, Reason: reason,
	})
	if err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(int(code))
	_, _ = w.Write(raw)
}
