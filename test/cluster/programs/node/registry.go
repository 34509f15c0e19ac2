// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/registry"
)

// serveRegistry serves an image registry over plain HTTP, with its images in a directory. At a
// second address, the same registry requires a login, and permits only reads:
//
//	registry ADDRESS DIR PRIVATE-ADDRESS USER PASSWORD
func serveRegistry(args []string) error {
	if len(args) != 5 {
		return errors.New("usage: registry ADDRESS DIR PRIVATE-ADDRESS USER PASSWORD")
	}
	open, err := openRegistry(args[1])
	if err != nil {
		return err
	}
	ended := make(chan error, 2)
	go func() { ended <- http.ListenAndServe(args[0], open) }()
	go func() { ended <- http.ListenAndServe(args[2], private{open, args[3], args[4]}) }()
	return <-ended
}

// private is a registry that refuses writes, and clients without the login.
type private struct {
	http.Handler
	user, password string
}

func (p private) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, password, ok := r.BasicAuth()
	if !ok || user != p.user || password != p.password {
		log.Println(r.RemoteAddr, r.Method, r.URL, "without the login")
		w.Header().Set("WWW-Authenticate", `Basic realm="private"`)
		// Clients of registries look for the words of the body below.
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	p.Handler.ServeHTTP(w, r)
}

// durable is a registry whose content survives a restart. The library go-containerregistry stores
// blobs in files, but keeps manifests only in memory. So durable records each manifest in a file.
// At the start, durable replays the records, the oldest first.
type durable struct {
	http.Handler
	dir string

	mu   sync.Mutex
	next int
}

func openRegistry(dir string) (*durable, error) {
	manifests, blobs := filepath.Join(dir, "manifests"), filepath.Join(dir, "blobs")
	for _, sub := range []string{manifests, blobs} {
		if err := os.MkdirAll(sub, 0o755); err != nil {
			return nil, err
		}
	}
	d := &durable{dir: manifests, Handler: registry.New(
		registry.Logger(log.New(io.Discard, "", 0)),
		registry.WithBlobHandler(registry.NewDiskBlobHandler(blobs)),
	)}
	names, err := filepath.Glob(filepath.Join(manifests, "????????"))
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	for _, name := range names {
		if err := d.replay(name); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// replay stores the manifest of a record again. A record is the URL path, the media type and the
// body, in this order, with a line feed between them.
func (d *durable) replay(name string) error {
	record, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	path, rest, _ := strings.Cut(string(record), "\n")
	mediaType, body, _ := strings.Cut(rest, "\n")
	put := httptest.NewRequestWithContext(context.Background(), http.MethodPut, path, strings.NewReader(body))
	put.Header.Set("Content-Type", mediaType)
	answer := httptest.NewRecorder()
	d.Handler.ServeHTTP(answer, put)
	if answer.Code >= 300 {
		return fmt.Errorf("restore %s: %d %s", path, answer.Code, answer.Body)
	}
	d.next++
	return nil
}

func (d *durable) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	log.Println(r.RemoteAddr, r.Method, r.URL)
	if r.Method != http.MethodPut || !strings.Contains(r.URL.Path, "/manifests/") {
		d.Handler.ServeHTTP(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	d.mu.Lock()
	defer d.mu.Unlock()
	answer := &statusWriter{ResponseWriter: w}
	d.Handler.ServeHTTP(answer, r)
	if answer.status >= 300 {
		return
	}
	record := r.URL.Path + "\n" + r.Header.Get("Content-Type") + "\n" + string(body)
	if err := d.record(record); err != nil {
		log.Println("record manifest:", err)
	}
}

func (d *durable) record(record string) error {
	name := filepath.Join(d.dir, fmt.Sprintf("%08d", d.next))
	if err := os.WriteFile(name+".new", []byte(record), 0o644); err != nil {
		return err
	}
	d.next++
	return os.Rename(name+".new", name)
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}
