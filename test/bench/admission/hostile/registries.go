// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
)

const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	indexType    = "application/vnd.oci.image.index.v1+json"
	// slowHosts is the number of registries that never answer.
	slowHosts = 32
)

// registries has one registry with all images, and several registries that never answer. All of
// them listen on loopback.
type registries struct {
	server, slow *httptest.Server
	host         string
	slowHost     []string

	mu    sync.Mutex
	blobs map[string][]byte
}

func startRegistries(ctx context.Context) (*registries, error) {
	r := &registries{blobs: map[string][]byte{}}
	r.server = httptest.NewServer(r)
	r.host = strings.TrimPrefix(r.server.URL, "http://")
	r.slow = httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) { <-q.Context().Done() }))
	var config net.ListenConfig
	all, err := config.Listen(ctx, "tcp", "0.0.0.0:0")
	if err != nil {
		return nil, err
	}
	_ = r.slow.Listener.Close()
	r.slow.Listener = all
	r.slow.Start()
	_, port, err := net.SplitHostPort(all.Addr().String())
	if err != nil {
		return nil, err
	}
	for n := range slowHosts {
		r.slowHost = append(r.slowHost, fmt.Sprintf("127.0.1.%d:%s", n+1, port))
	}
	return r, nil
}

func (r *registries) stop() {
	r.slow.CloseClientConnections()
	r.slow.Close()
	r.server.Close()
}

func (r *registries) hosts() []string { return append([]string{r.host}, r.slowHost...) }

// keep stores a blob, and returns its digest.
func (r *registries) keep(blob []byte) string {
	sum := sha256.Sum256(blob)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blobs[digest] = blob
	return digest
}

func (r *registries) image(config any) []byte {
	text, _ := json.Marshal(map[string]any{"config": config})
	manifest, _ := json.Marshal(map[string]any{"mediaType": manifestType, "config": map[string]any{"digest": r.keep(text)}})
	return manifest
}

// manifest returns the manifest of a repository. The first part of the repository's
// name decides the content.
func (r *registries) manifest(repository string) (text []byte, mediaType string) {
	kind, _, _ := strings.Cut(repository, "/")
	switch kind {
	case "words": // 1.9 MB of configuration that would become 20 MB of words
		return r.image(map[string]any{"Entrypoint": make([]string, 600_000)}), manifestType
	case "unique": // a command just below the maximum length
		return r.image(map[string]any{"Entrypoint": []string{repository, strings.Repeat("x", 60<<10)}}), manifestType
	case "index": // 32 platforms with 1.9 MB each
		var all []map[string]any
		for n := range 32 {
			manifest := r.image(map[string]any{"Entrypoint": []string{fmt.Sprint(n)}, "Env": []string{strings.Repeat(string(rune('A'+n)), 1900<<10)}})
			all = append(all, map[string]any{"mediaType": manifestType, "digest": r.keep(manifest),
				"platform": map[string]any{"os": "linux", "architecture": fmt.Sprint("arch", n)}})
		}
		text, _ := json.Marshal(map[string]any{"mediaType": indexType, "manifests": all})
		return text, indexType
	}
	return r.image(map[string]any{"Entrypoint": []string{"/usr/bin/tini", "--", repository}}), manifestType
}

var made sync.Map

// ServeHTTP implements [http.Handler].
func (r *registries) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	path := strings.TrimPrefix(q.URL.Path, "/v2/")
	if path == "" {
		return
	}
	if _, digest, ok := strings.Cut(path, "/blobs/"); ok {
		r.mu.Lock()
		blob := r.blobs[digest]
		r.mu.Unlock()
		_, _ = w.Write(blob)
		return
	}
	repository, reference, _ := strings.Cut(path, "/manifests/")
	w.Header().Set("Content-Type", manifestType)
	r.mu.Lock()
	text := r.blobs[reference]
	r.mu.Unlock()
	if text == nil {
		kind, _, _ := strings.Cut(repository, "/")
		key := repository
		if kind == "words" || kind == "index" {
			key = kind // all repositories of this kind have the same manifest
		}
		once, _ := made.LoadOrStore(key, sync.OnceValues(func() ([]byte, string) { return r.manifest(repository) }))
		var mediaType string
		text, mediaType = once.(func() ([]byte, string))()
		r.keep(text)
		w.Header().Set("Content-Type", mediaType)
	} else if strings.Contains(string(text[:min(len(text), 200)]), indexType) || strings.HasPrefix(string(text), `{"manifests"`) {
		w.Header().Set("Content-Type", indexType)
	}
	sum := sha256.Sum256(text)
	w.Header().Set("Docker-Content-Digest", "sha256:"+hex.EncodeToString(sum[:]))
	if q.Method == http.MethodGet {
		_, _ = w.Write(text)
	}
}
