// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	change "github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/api/addresses"
)

// loopback is the network of the fake registries.
var loopback = addresses.Prefixes("127.0.0.0/8", "::1/128")

// fakeRegistry is a registry that can ask for a password, hang, and answer with status 503.
type fakeRegistry struct {
	*httptest.Server
	inner http.Handler
	// passwords has passwords of the user "reader", by the first part of the repository's
	// path. Repositories without a password are public.
	passwords map[string]string
	hang      chan struct{}
	away      atomic.Bool
	noHead    atomic.Bool
	// now is the present number of concurrent requests. The field "most" is the largest number of
	// them so far. The field "sent" counts the bytes of all answers.
	now, most atomic.Int32
	sent      atomic.Int64
	mu        sync.Mutex
	requests  []string
}

// counted is an answer that counts its bytes.
type counted struct {
	http.ResponseWriter
	sent *atomic.Int64
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.sent.Add(int64(n))
	return n, err
}

func newRegistry(t *testing.T, tls bool) *fakeRegistry {
	t.Helper()
	f := &fakeRegistry{
		inner:     registry.New(registry.Logger(log.New(io.Discard, "", 0))),
		passwords: map[string]string{},
	}
	if tls {
		f.Server = httptest.NewTLSServer(f)
	} else {
		f.Server = httptest.NewServer(f)
	}
	f.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(f.Close)
	return f
}

func (f *fakeRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := f.now.Add(1)
	defer f.now.Add(-1)
	for most := f.most.Load(); now > most && !f.most.CompareAndSwap(most, now); most = f.most.Load() {
	}
	f.mu.Lock()
	f.requests = append(f.requests, r.Method+" "+r.URL.Path)
	hang := f.hang
	f.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}
	if f.away.Load() {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if f.noHead.Load() && r.Method == http.MethodHead {
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	if !f.allowed(r) {
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	f.inner.ServeHTTP(counted{w, &f.sent}, r)
}

func (f *fakeRegistry) allowed(r *http.Request) bool {
	if len(f.passwords) == 0 {
		return true
	}
	user, password, _ := r.BasicAuth()
	team, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/")
	if team == "" {
		return user != "" // the refusal of a request to /v2/ tells clients how to log in
	}
	want, private := f.passwords[team]
	return !private || (user == "reader" && password == want)
}

func (f *fakeRegistry) host() string {
	_, host, _ := strings.Cut(f.URL, "://")
	return host
}

// seen returns how many requests had the prefix since the last call of seen.
func (f *fakeRegistry) seen(prefix string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, r := range f.requests {
		if strings.HasPrefix(r, prefix) {
			n++
		}
	}
	f.requests = nil
	return n
}

func (f *fakeRegistry) pushOptions() []remote.Option {
	return []remote.Option{remote.WithTransport(f.Client().Transport)}
}

func imageOf(t *testing.T, os, arch string, config v1.Config) v1.Image {
	t.Helper()
	image, err := change.ConfigFile(empty.Image, &v1.ConfigFile{OS: os, Architecture: arch, Config: config})
	require.NoError(t, err)
	return image
}

func (f *fakeRegistry) push(t *testing.T, path string, config v1.Config) string {
	t.Helper()
	at := f.host() + "/" + path
	ref, err := name.ParseReference(at)
	require.NoError(t, err)
	image := imageOf(t, "linux", "amd64", config)
	kept := f.passwords
	f.passwords = nil
	require.NoError(t, remote.Write(ref, image, f.pushOptions()...))
	f.passwords = kept
	f.seen("")
	digest, err := image.Digest()
	require.NoError(t, err)
	return ref.Context().Digest(digest.String()).String()
}

func (f *fakeRegistry) pushIndex(t *testing.T, path string, images ...v1.Image) string {
	t.Helper()
	index := v1.ImageIndex(empty.Index)
	for _, image := range images {
		file, err := image.ConfigFile()
		require.NoError(t, err)
		index = change.AppendManifests(index, change.IndexAddendum{
			Add:        image,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: file.OS, Architecture: file.Architecture}},
		})
	}
	at := f.host() + "/" + path
	ref, err := name.ParseReference(at)
	require.NoError(t, err)
	require.NoError(t, remote.WriteIndex(ref, index, f.pushOptions()...))
	f.seen("")
	f.most.Store(0)
	return at
}

func (f *fakeRegistry) resolver(o Options) *Resolver {
	o.PlainHTTP = append(o.PlainHTTP, f.host())
	return New(o)
}

// counting listens on loopback, closes each connection immediately, and counts the connections.
func counting(t *testing.T) (port string, count *atomic.Int32) {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	count = new(atomic.Int32)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			count.Add(1)
			_ = connection.Close()
		}
	}()
	t.Cleanup(func() { _ = listener.Close(); <-done })
	_, port, err = net.SplitHostPort(listener.Addr().String())
	require.NoError(t, err)
	return port, count
}
