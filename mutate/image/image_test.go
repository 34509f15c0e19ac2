// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"crypto/x509"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	change "github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/mutate"
)

// fakeRegistry is a registry that can ask for a password, hang and go away.
type fakeRegistry struct {
	*httptest.Server
	inner http.Handler
	// password of user "reader", by the first part of the repository's path;
	// repositories without one are public.
	passwords map[string]string
	hang      chan struct{}
	away      atomic.Bool
	noHead    atomic.Bool
	mu        sync.Mutex
	requests  []string
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
	f.inner.ServeHTTP(w, r)
}

func (f *fakeRegistry) allowed(r *http.Request) bool {
	if len(f.passwords) == 0 {
		return true
	}
	user, password, _ := r.BasicAuth()
	team, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/")
	if team == "" {
		return user != "" // the ping tells clients which scheme to use
	}
	want, private := f.passwords[team]
	return !private || (user == "reader" && password == want)
}

func (f *fakeRegistry) host() string {
	_, host, _ := strings.Cut(f.URL, "://")
	return host
}

// seen are the requests since the last call.
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
	return at
}

func (f *fakeRegistry) resolver(o Options) *Resolver {
	o.PlainHTTP = append(o.PlainHTTP, f.host())
	return New(o)
}

var redis = v1.Config{Entrypoint: []string{"docker-entrypoint.sh"}, Cmd: []string{"redis-server"}, StopSignal: "SIGQUIT"}

var redisCommand = mutate.Command{Entrypoint: redis.Entrypoint, Cmd: redis.Cmd, StopSignal: "SIGQUIT"}

// compat: command/entrypoint command/cmd carried
func TestCommandIsTheImagesOwn(t *testing.T) {
	f := newRegistry(t, false)
	f.push(t, "library/redis:7", redis)
	command, err := f.resolver(Options{}).Command(t.Context(), f.host()+"/library/redis:7", mutate.PullRights{})
	require.NoError(t, err)
	assert.Equal(t, redisCommand, command)
}

// compat: command/pull-always command/tag carried
func TestTagThatMovedIsResolvedAnew(t *testing.T) {
	f := newRegistry(t, false)
	r := f.resolver(Options{})
	f.push(t, "app:latest", redis)
	first, err := r.Command(t.Context(), f.host()+"/app", mutate.PullRights{})
	require.NoError(t, err)
	f.push(t, "app:latest", v1.Config{Entrypoint: []string{"other"}})
	second, err := r.Command(t.Context(), f.host()+"/app", mutate.PullRights{})
	require.NoError(t, err)
	assert.Equal(t, []string{"docker-entrypoint.sh"}, first.Entrypoint)
	assert.Equal(t, []string{"other"}, second.Entrypoint)
}

func TestTagThatStayedCostsOneHead(t *testing.T) {
	f := newRegistry(t, false)
	r := f.resolver(Options{})
	f.push(t, "app:1", redis)
	for range 2 {
		_, err := r.Command(t.Context(), f.host()+"/app:1", mutate.PullRights{})
		require.NoError(t, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var heads, manifests int
	for _, request := range f.requests {
		if strings.HasPrefix(request, "HEAD ") {
			heads++
		}
		if strings.HasPrefix(request, "GET /v2/app/manifests/") {
			manifests++
		}
	}
	assert.Equal(t, 2, heads)
	assert.Equal(t, 1, manifests, "a pull is counted against a limit")
}

// compat: command/digest carried
func TestPublicDigestThatWasReadIsKnownWithoutAQuestion(t *testing.T) {
	f := newRegistry(t, false)
	f.passwords["private"] = "swordfish"
	public, private := f.push(t, "shop/app:1", redis), f.push(t, "private/app:1", redis)
	store := &secrets{secrets: map[string]*corev1.Secret{"shop/good": pullSecret(t, f.host(), "swordfish")}}
	r := f.resolver(Options{Secrets: store})
	_, known := r.Known(public)
	assert.False(t, known, "nobody read it yet")
	rights := mutate.PullRights{Namespace: "shop"}
	_, err := r.Command(t.Context(), public, rights)
	require.NoError(t, err)
	rights.Secrets = []string{"good"}
	_, err = r.Command(t.Context(), private, rights)
	require.NoError(t, err)
	asked := store.asked.Load()
	f.seen("")

	got, known := r.Known(public)
	assert.True(t, known)
	assert.Equal(t, redisCommand, got)
	got, err = r.Command(t.Context(), public, rights)
	require.NoError(t, err)
	assert.Equal(t, redisCommand, got)
	assert.Equal(t, asked, store.asked.Load(), "no secret was read")
	assert.Zero(t, f.seen(""), "no request was sent")

	_, known = r.Known(private)
	assert.False(t, known, "not everybody may read it")
	_, known = r.Known(f.host() + "/shop/app:1")
	assert.False(t, known, "a tag may have moved")
}

func TestRegistryWithoutHead(t *testing.T) {
	f := newRegistry(t, false)
	f.push(t, "app:1", redis)
	f.noHead.Store(true)
	command, err := f.resolver(Options{}).Command(t.Context(), f.host()+"/app:1", mutate.PullRights{})
	require.NoError(t, err)
	assert.Equal(t, redisCommand, command)
}

// compat: command/registry-away carried
func TestRegistryAway(t *testing.T) {
	f := newRegistry(t, false)
	r := f.resolver(Options{})
	digest := f.push(t, "app:1", redis)
	for _, image := range []string{digest, f.host() + "/app:1"} {
		_, err := r.Command(t.Context(), image, mutate.PullRights{})
		require.NoError(t, err)
	}
	f.away.Store(true)

	command, err := r.Command(t.Context(), digest, mutate.PullRights{})
	require.NoError(t, err, "a digest says the same for ever")
	assert.Equal(t, redisCommand, command)

	command, err = r.Command(t.Context(), f.host()+"/app:1", mutate.PullRights{})
	require.NoError(t, err, "a tag is what it was last seen to name")
	assert.Equal(t, redisCommand, command)

	r.now = func() time.Time { return time.Now().Add(tagMemory) }
	_, err = r.Command(t.Context(), f.host()+"/app:1", mutate.PullRights{})
	require.Error(t, err, "but not for ever")

	_, err = r.Command(t.Context(), f.host()+"/app:2", mutate.PullRights{})
	require.Error(t, err, "and not if it never was")
}

func TestTagThatIsGoneIsNotRemembered(t *testing.T) {
	f := newRegistry(t, false)
	r := f.resolver(Options{})
	f.push(t, "app:1", redis)
	_, err := r.Command(t.Context(), f.host()+"/app:1", mutate.PullRights{})
	require.NoError(t, err)
	ref, err := name.ParseReference(f.host() + "/app:1")
	require.NoError(t, err)
	require.NoError(t, remote.Delete(ref, f.pushOptions()...))
	_, err = r.Command(t.Context(), f.host()+"/app:1", mutate.PullRights{})
	require.Error(t, err)
}

// compat: command/registry-away carried
func TestSlowRegistryIsGivenUpWithinTheBudget(t *testing.T) {
	f := newRegistry(t, false)
	r := f.resolver(Options{Budget: 100 * time.Millisecond})
	f.push(t, "app:1", redis)
	f.hang = make(chan struct{})
	t.Cleanup(func() { close(f.hang) })
	began := time.Now()
	_, err := r.Command(t.Context(), f.host()+"/app:1", mutate.PullRights{})
	require.ErrorContains(t, err, "no answer within 100ms")
	assert.Less(t, time.Since(began), 5*time.Second)
}

func TestRegistryThatHangsLeavesTimeToRemember(t *testing.T) {
	f := newRegistry(t, false)
	r := f.resolver(Options{Budget: time.Second})
	f.push(t, "app:1", redis)
	_, err := r.Command(t.Context(), f.host()+"/app:1", mutate.PullRights{})
	require.NoError(t, err)
	f.mu.Lock()
	f.hang = make(chan struct{})
	f.mu.Unlock()
	t.Cleanup(func() { close(f.hang) })
	command, err := r.Command(t.Context(), f.host()+"/app:1", mutate.PullRights{})
	require.NoError(t, err)
	assert.Equal(t, redisCommand, command)
}

func TestIndexOfPlatformsThatAgree(t *testing.T) {
	f := newRegistry(t, false)
	at := f.pushIndex(t, "app:1",
		imageOf(t, "linux", "amd64", redis),
		imageOf(t, "linux", "arm64", redis),
		imageOf(t, "windows", "amd64", v1.Config{Entrypoint: []string{`C:\redis.exe`}}),
		imageOf(t, "unknown", "unknown", v1.Config{}))
	command, err := f.resolver(Options{}).Command(t.Context(), at, mutate.PullRights{})
	require.NoError(t, err)
	assert.Equal(t, redisCommand, command)
}

// compat: command/platforms carried
func TestIndexOfPlatformsThatDiffer(t *testing.T) {
	f := newRegistry(t, false)
	differ := map[string]v1.Config{
		"entrypoint": {Entrypoint: []string{"other"}, Cmd: redis.Cmd, StopSignal: redis.StopSignal},
		"cmd":        {Entrypoint: redis.Entrypoint, Cmd: []string{"other"}, StopSignal: redis.StopSignal},
		"signal":     {Entrypoint: redis.Entrypoint, Cmd: redis.Cmd},
	}
	for what, config := range differ {
		t.Run(what, func(t *testing.T) {
			at := f.pushIndex(t, "app:"+what, imageOf(t, "linux", "amd64", redis), imageOf(t, "linux", "arm64", config))
			command, err := f.resolver(Options{}).Command(t.Context(), at, mutate.PullRights{})
			require.NoError(t, err)
			assert.Equal(t, mutate.Command{Platforms: map[string]mutate.Command{
				"amd64": redisCommand,
				"arm64": {Entrypoint: config.Entrypoint, Cmd: config.Cmd, StopSignal: config.StopSignal},
			}}, command)
		})
	}
}

// compat: command/platforms refused ImagePlatforms
func TestIndexOfOneArchitecturesVariantsThatDifferIsRefused(t *testing.T) {
	f := newRegistry(t, false)
	other := v1.Config{Entrypoint: []string{"other"}}
	for name, at := range map[string]string{
		"two of one":  f.pushIndex(t, "app:1", imageOf(t, "linux", "amd64", redis), imageOf(t, "linux", "amd64", other)),
		"one of none": f.pushIndex(t, "app:2", imageOf(t, "linux", "amd64", redis), imageOf(t, "linux", "", other)),
	} {
		_, err := f.resolver(Options{}).Command(t.Context(), at, mutate.PullRights{})
		require.ErrorIs(t, err, mutate.ErrPlatforms, name)
	}
}

func TestIndexWithoutLinux(t *testing.T) {
	f := newRegistry(t, false)
	at := f.pushIndex(t, "app:1", imageOf(t, "windows", "amd64", redis))
	_, err := f.resolver(Options{}).Command(t.Context(), at, mutate.PullRights{})
	require.ErrorIs(t, err, errPlatform)
}

func TestPlainHTTPOnlyWhereAllowed(t *testing.T) {
	f := newRegistry(t, false)
	f.push(t, "app:1", redis)
	_, err := New(Options{}).Command(t.Context(), f.host()+"/app:1", mutate.PullRights{})
	require.ErrorIs(t, err, errPlainHTTP)
}

// compat: command/private-ca carried
func TestPrivateCA(t *testing.T) {
	f := newRegistry(t, true)
	f.push(t, "app:1", redis)
	_, err := New(Options{}).Command(t.Context(), f.host()+"/app:1", mutate.PullRights{})
	require.Error(t, err, "nobody vouches for it")
	pool := x509.NewCertPool()
	pool.AddCert(f.Certificate())
	command, err := New(Options{CAs: pool}).Command(t.Context(), f.host()+"/app:1", mutate.PullRights{})
	require.NoError(t, err)
	assert.Equal(t, redisCommand, command)
}

func TestManyAtOnceAskOnce(t *testing.T) {
	f := newRegistry(t, false)
	r := f.resolver(Options{Budget: 10 * time.Second})
	f.push(t, "app:1", redis)
	f.hang = make(chan struct{})
	const pods = 50
	var wait sync.WaitGroup
	errs := make(chan error, pods)
	// One of them gives up while the registry hangs; the others must not.
	impatient, giveUp := context.WithCancel(t.Context())
	wait.Go(func() {
		_, err := r.Command(impatient, f.host()+"/app:1", mutate.PullRights{})
		assert.ErrorIs(t, err, context.Canceled)
	})
	require.Eventually(t, func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.requests) > 0 }, 5*time.Second, time.Millisecond)
	for range pods {
		wait.Go(func() {
			_, err := r.Command(t.Context(), f.host()+"/app:1", mutate.PullRights{})
			errs <- err
		})
	}
	giveUp()
	close(f.hang)
	wait.Wait()
	for range pods {
		require.NoError(t, <-errs)
	}
	assert.Equal(t, 1, f.seen("GET /v2/app/manifests/"))
}

func TestHugeConfigIsRefused(t *testing.T) {
	f := newRegistry(t, false)
	f.push(t, "app:1", v1.Config{Entrypoint: []string{"app"}, Env: []string{strings.Repeat("x", maxBody)}})
	_, err := f.resolver(Options{Budget: 10 * time.Second}).Command(t.Context(), f.host()+"/app:1", mutate.PullRights{})
	require.Error(t, err)
}
