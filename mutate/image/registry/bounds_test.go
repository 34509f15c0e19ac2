// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/mutate/image"
)

// heap returns the bytes of the heap that are in use after a garbage collection.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// grew returns the bytes by which the heap has grown since an earlier call of heap.
func grew(since uint64) uint64 { return max(heap(), since) - since }

func TestHugeImageNamesAreNotCached(t *testing.T) {
	r := New(Options{})
	before := heap()
	for i := range 100 {
		named := strings.Repeat("a", 1<<20) + fmt.Sprintf(".example/app:%d", i)
		r.Known(named)
	}
	assert.Less(t, grew(before), uint64(4<<20))
	_, err := r.Command(t.Context(), strings.Repeat("a", 1<<20)+".example/app:1", image.PullRights{})
	require.EqualError(t, err, "a name of more than 1024 bytes", "no registry was asked")
	runtime.KeepAlive(r)
}

func TestImageWithAHugeCommandIsRefused(t *testing.T) {
	f := newRegistry(t, false)
	r := f.resolver(Options{Budget: 20 * time.Second})
	for what, words := range map[string][]string{
		"one word":   {strings.Repeat("x", 70<<10)},
		"many words": make([]string, 100_000),
	} {
		t.Run(what, func(t *testing.T) {
			f.push(t, "app:1", v1.Config{Entrypoint: words})
			_, err := r.Command(t.Context(), f.host()+"/app:1", image.PullRights{})
			require.Error(t, err)
			assert.Less(t, len(err.Error()), 200)
		})
	}
	f.push(t, "app:1", v1.Config{Entrypoint: []string{strings.Repeat("x", 60<<10)}})
	_, err := r.Command(t.Context(), f.host()+"/app:1", image.PullRights{})
	require.NoError(t, err)
}

// busy is a registry that never answers, and counts its concurrent requests.
type busy struct {
	*httptest.Server
	now, most, all atomic.Int32
}

func newBusy(t *testing.T) *busy {
	t.Helper()
	b := new(busy)
	b.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		now := b.now.Add(1)
		defer b.now.Add(-1)
		b.all.Add(1)
		for most := b.most.Load(); now > most && !b.most.CompareAndSwap(most, now); most = b.most.Load() {
		}
		<-r.Context().Done()
	}))
	t.Cleanup(b.Close)
	return b
}

func (b *busy) host() string { return strings.TrimPrefix(b.URL, "http://") }

// askMany starts many look-ups at the same time. The end of the context cancels the look-ups. The
// caller can wait for their end by the returned group.
func (b *busy) askMany(ctx context.Context, r *Resolver, namespaces, each int) *sync.WaitGroup {
	wait := new(sync.WaitGroup)
	for n := range namespaces {
		for i := range each {
			wait.Go(func() {
				named := fmt.Sprintf("%s/evil%d/app%d:1", b.host(), n, i)
				_, _ = r.Command(ctx, named, image.PullRights{Namespace: fmt.Sprint("evil", n)})
			})
		}
	}
	return wait
}

func TestConcurrentImageLookUpsAreBounded(t *testing.T) {
	for what, c := range map[string]struct{ namespaces, most int }{
		"of one namespace":   {1, 8},
		"of many namespaces": {20, 32},
	} {
		t.Run(what, func(t *testing.T) {
			b := newBusy(t)
			r := New(Options{PlainHTTP: []string{b.host()}, Budget: time.Minute})
			ctx, cancel := context.WithCancel(t.Context())
			wait := b.askMany(ctx, r, c.namespaces, 200/c.namespaces)
			require.Eventually(t, func() bool { return int(b.now.Load()) >= c.most }, 20*time.Second, time.Millisecond)
			cancel()
			wait.Wait()
			assert.LessOrEqual(t, int(b.most.Load()), c.most)
		})
	}
}

func TestImageLookUpEndsWhenNoPodWaits(t *testing.T) {
	b := newBusy(t)
	r := New(Options{PlainHTTP: []string{b.host()}, Budget: time.Minute})
	ctx, cancel := context.WithCancel(t.Context())
	wait := b.askMany(ctx, r, 1, 4)
	require.Eventually(t, func() bool { return b.now.Load() >= 4 }, 20*time.Second, time.Millisecond)
	cancel()
	wait.Wait()
	require.Eventually(t, func() bool { return b.now.Load() == 0 }, 20*time.Second, time.Millisecond,
		"a look-up goes on that no pod waits for")
}

func TestResolverBoundsConcurrentReadsOfImagePlatforms(t *testing.T) {
	f := newRegistry(t, false)
	var images []v1.Image
	for i := range 32 {
		images = append(images, imageOf(t, "linux", fmt.Sprint("arch", i), v1.Config{Cmd: []string{fmt.Sprint(i)}}))
	}
	at := f.pushIndex(t, "app:1", images...)
	command, err := f.resolver(Options{Budget: 20 * time.Second}).Command(t.Context(), at, image.PullRights{})
	require.NoError(t, err)
	assert.Len(t, command.Platforms, 32)
	assert.LessOrEqual(t, int(f.most.Load()), 8)
}

func TestBytesOfOneImageLookUpAreBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("slow with the race detector")
	}
	f := newRegistry(t, false)
	var images []v1.Image
	for i := range 32 {
		env := strings.Repeat(fmt.Sprint(i%10), 1<<20)
		images = append(images, imageOf(t, "linux", fmt.Sprint("arch", i), v1.Config{Cmd: []string{fmt.Sprint(i)}, Env: []string{env}}))
	}
	at := f.pushIndex(t, "app:1", images...)
	f.sent.Store(0)
	_, err := f.resolver(Options{Budget: 20 * time.Second}).Command(t.Context(), at, image.PullRights{})
	require.Error(t, err)
	assert.Less(t, f.sent.Load(), int64(24<<20), "what lies in the buffers of sockets counts, too")
}

func TestImageIndexOfManyEntriesIsRefused(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
		fmt.Fprint(w, `{"manifests":[{}`+strings.Repeat(`,{}`, 100_000)+`]}`)
	}))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	_, err := New(Options{PlainHTTP: []string{host}, Budget: 20 * time.Second}).Command(t.Context(), host+"/app:1", image.PullRights{})
	require.Error(t, err)
	assert.NotErrorIs(t, err, errPlatform, "the entries were all decoded")
}

func TestNumberOfPullSecretsIsBounded(t *testing.T) {
	f := newRegistry(t, false)
	f.push(t, "app:1", redis)
	store := &secrets{}
	var names []string
	for i := range 20_000 {
		names = append(names, fmt.Sprint("secret-", i))
	}
	_, err := f.resolver(Options{Secrets: store}).Command(t.Context(), f.host()+"/app:1", image.PullRights{Namespace: "shop", Secrets: names})
	require.NoError(t, err)
	assert.LessOrEqual(t, int(store.asked.Load()), 32)
}

func TestTimedOutLookUpStopsReadingPullSecrets(t *testing.T) {
	f := newRegistry(t, false)
	f.push(t, "app:1", redis)
	store := &secrets{late: make(chan struct{})}
	defer close(store.late)
	var names []string
	for i := range 30 {
		names = append(names, fmt.Sprint("secret-", i))
	}
	_, err := f.resolver(Options{Secrets: store, Budget: 50 * time.Millisecond}).Command(t.Context(), f.host()+"/app:1",
		image.PullRights{Namespace: "shop", Secrets: names})
	require.Error(t, err)
	assert.Equal(t, 1, int(store.asked.Load()), "the first one used up the budget")
}

// leaky starts a registry with the given answers, and returns its host.
func leaky(t *testing.T, answer func(w http.ResponseWriter, r *http.Request, self string)) string {
	t.Helper()
	var self string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(w, r, self) }))
	t.Cleanup(server.Close)
	self = strings.TrimPrefix(server.URL, "http://")
	return self
}

func TestRefusalContainsNoTextOfTheRegistry(t *testing.T) {
	const secret = "s3cr3t"
	for what, answer := range map[string]func(w http.ResponseWriter, r *http.Request, self string){
		"token": func(w http.ResponseWriter, r *http.Request, self string) {
			if r.URL.Path == "/token" {
				fmt.Fprintf(w, `{"secret":%q}`, secret)
				return
			}
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+self+`/token",service="`+secret+`"`)
			w.WriteHeader(http.StatusUnauthorized)
		},
		"challenge": func(w http.ResponseWriter, _ *http.Request, _ string) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="ftp://`+secret+`"`)
			w.WriteHeader(http.StatusUnauthorized)
		},
		"error": func(w http.ResponseWriter, _ *http.Request, _ string) {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`, secret, secret)
		},
		"body": func(w http.ResponseWriter, r *http.Request, _ string) {
			if r.URL.Path != "/v2/" {
				w.WriteHeader(http.StatusBadRequest)
			}
			fmt.Fprint(w, secret)
		},
		"media type": func(w http.ResponseWriter, r *http.Request, _ string) {
			w.Header().Set("Content-Type", secret)
			w.Header().Set("Docker-Content-Digest", secret)
			fmt.Fprint(w, secret)
		},
		"redirect": func(w http.ResponseWriter, r *http.Request, _ string) {
			http.Redirect(w, r, "https://"+secret+".invalid/", http.StatusFound)
		},
		"platform": func(w http.ResponseWriter, r *http.Request, _ string) {
			w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
			fmt.Fprintf(w, `{"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"platform":{"os":"linux","architecture":%q}}]}`, secret, secret)
		},
	} {
		t.Run(what, func(t *testing.T) {
			host := leaky(t, answer)
			_, err := New(Options{PlainHTTP: []string{host}, Budget: 5 * time.Second}).Command(t.Context(), host+"/app:1", image.PullRights{})
			require.Error(t, err)
			assert.NotContains(t, err.Error(), secret)
			assert.Less(t, len(err.Error()), 300)
		})
	}
}

func TestRegistryCannotRedirectToAPrivateAddress(t *testing.T) {
	port, connections := counting(t)
	for what, answer := range map[string]func(w http.ResponseWriter, r *http.Request, self string){
		"realm": func(w http.ResponseWriter, _ *http.Request, _ string) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="https://localhost:`+port+`/"`)
			w.WriteHeader(http.StatusUnauthorized)
		},
		"redirect": func(w http.ResponseWriter, r *http.Request, _ string) {
			http.Redirect(w, r, "https://localhost:"+port+"/", http.StatusFound)
		},
	} {
		t.Run(what, func(t *testing.T) {
			host := leaky(t, answer)
			_, err := New(Options{PlainHTTP: []string{host}, Budget: 5 * time.Second}).Command(t.Context(), host+"/app:1", image.PullRights{})
			require.Error(t, err)
			assert.Zero(t, connections.Load(), "connections to the inside")
		})
	}
}

func TestImageNameCausesNoConnectionToLoopback(t *testing.T) {
	port, connections := counting(t)
	for _, host := range []string{"localhost", "127.0.0.1", "[::ffff:127.0.0.1]", "0.0.0.0"} {
		_, err := New(Options{Budget: 5 * time.Second}).Command(t.Context(), host+":"+port+"/app:1", image.PullRights{})
		require.Error(t, err, host)
		assert.Zero(t, connections.Load(), host)
	}
}

// A client of the standard library goes on dialling for a request that has ended. So the
// resolver has to stop the dialling itself.
func TestCanceledImageLookUpClosesTheConnection(t *testing.T) {
	var config net.ListenConfig
	listener, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	r := New(Options{Networks: loopback, Budget: time.Minute})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := r.Command(ctx, listener.Addr().String()+"/app:1", image.PullRights{})
		done <- err
	}()
	connection, err := listener.Accept()
	require.NoError(t, err)
	defer connection.Close()
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
	require.NoError(t, connection.SetReadDeadline(time.Now().Add(20*time.Second)))
	_, err = io.Copy(io.Discard, connection)
	require.NoError(t, err, "the connection is closed in the middle of its handshake")
}

func TestProxyGetsNoRequestToAForbiddenAddress(t *testing.T) {
	g := newTransport(Options{})
	g.proxy = func(*http.Request) (*url.URL, error) { return url.Parse("http://proxy.corp:3128") }
	for host, allowed := range map[string]bool{"registry.example": true, "8.8.8.8": true, "10.0.0.1": false, "169.254.169.254": false, "[::1]": false} {
		request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+host+"/v2/", nil)
		inner, err := g.inner(request, public)
		if allowed {
			require.NoError(t, err, host)
			assert.Same(t, g.proxied, inner, host)
			continue
		}
		require.ErrorIs(t, err, errAddress, host)
	}
}
