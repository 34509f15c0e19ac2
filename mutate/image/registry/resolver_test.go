// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"crypto/x509"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/mutate/image"
)

var redis = v1.Config{Entrypoint: []string{"docker-entrypoint.sh"}, Cmd: []string{"redis-server"}, StopSignal: "SIGQUIT"}

var redisCommand = image.Command{Entrypoint: redis.Entrypoint, Cmd: redis.Cmd, StopSignal: "SIGQUIT"}

// docs/reference/compatibility.md: command/entrypoint command/cmd carried
func TestResolverReturnsTheCommandOfTheImage(t *testing.T) {
	f := newRegistry(t, false)
	f.push(t, "library/redis:7", redis)
	command, err := f.resolver(Options{}).Command(t.Context(), f.host()+"/library/redis:7", image.PullRights{})
	require.NoError(t, err)
	assert.Equal(t, redisCommand, command)
}

// docs/reference/compatibility.md: command/pull-always command/tag carried
func TestEachImageLookUpResolvesATagAnew(t *testing.T) {
	f := newRegistry(t, false)
	r := f.resolver(Options{})
	f.push(t, "app:latest", redis)
	first, err := r.Command(t.Context(), f.host()+"/app", image.PullRights{})
	require.NoError(t, err)
	f.push(t, "app:latest", v1.Config{Entrypoint: []string{"other"}})
	second, err := r.Command(t.Context(), f.host()+"/app", image.PullRights{})
	require.NoError(t, err)
	assert.Equal(t, []string{"docker-entrypoint.sh"}, first.Entrypoint)
	assert.Equal(t, []string{"other"}, second.Entrypoint)
}

func TestUnchangedTagCostsOneHeadRequest(t *testing.T) {
	f := newRegistry(t, false)
	r := f.resolver(Options{})
	f.push(t, "app:1", redis)
	for range 2 {
		_, err := r.Command(t.Context(), f.host()+"/app:1", image.PullRights{})
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

// docs/reference/compatibility.md: command/digest carried
func TestPublicImageNamedByDigestIsReadOnce(t *testing.T) {
	f := newRegistry(t, false)
	f.passwords["private"] = "swordfish"
	public, private := f.push(t, "shop/app:1", redis), f.push(t, "private/app:1", redis)
	store := &secrets{secrets: map[string]*corev1.Secret{"shop/good": pullSecret(t, f.host(), "swordfish")}}
	r := f.resolver(Options{Secrets: store})
	_, known := r.Known(public)
	assert.False(t, known, "nobody read it yet")
	rights := image.PullRights{Namespace: "shop"}
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

func TestRefusedHeadRequestIsFollowedByGet(t *testing.T) {
	f := newRegistry(t, false)
	f.push(t, "app:1", redis)
	f.noHead.Store(true)
	command, err := f.resolver(Options{}).Command(t.Context(), f.host()+"/app:1", image.PullRights{})
	require.NoError(t, err)
	assert.Equal(t, redisCommand, command)
}

// docs/reference/compatibility.md: command/registry-away carried
func TestResolverUsesLastAnswerWhileRegistryIsDown(t *testing.T) {
	f := newRegistry(t, false)
	r := f.resolver(Options{})
	digest := f.push(t, "app:1", redis)
	for _, named := range []string{digest, f.host() + "/app:1"} {
		_, err := r.Command(t.Context(), named, image.PullRights{})
		require.NoError(t, err)
	}
	f.away.Store(true)

	command, err := r.Command(t.Context(), digest, image.PullRights{})
	require.NoError(t, err, "a digest says the same for ever")
	assert.Equal(t, redisCommand, command)

	command, err = r.Command(t.Context(), f.host()+"/app:1", image.PullRights{})
	require.NoError(t, err, "a tag is what it was last seen to name")
	assert.Equal(t, redisCommand, command)

	r.now = func() time.Time { return time.Now().Add(tagMemory) }
	_, err = r.Command(t.Context(), f.host()+"/app:1", image.PullRights{})
	require.Error(t, err, "but not for ever")

	_, err = r.Command(t.Context(), f.host()+"/app:2", image.PullRights{})
	require.Error(t, err, "and not if it never was")
}

func TestResolverFindsNoCommandForADeletedTag(t *testing.T) {
	f := newRegistry(t, false)
	r := f.resolver(Options{})
	f.push(t, "app:1", redis)
	_, err := r.Command(t.Context(), f.host()+"/app:1", image.PullRights{})
	require.NoError(t, err)
	ref, err := name.ParseReference(f.host() + "/app:1")
	require.NoError(t, err)
	require.NoError(t, remote.Delete(ref, f.pushOptions()...))
	_, err = r.Command(t.Context(), f.host()+"/app:1", image.PullRights{})
	require.ErrorIs(t, err, errAbsent)
}

// docs/reference/compatibility.md: command/registry-away carried
func TestResolverGivesUpOnAHangingRegistry(t *testing.T) {
	f := newRegistry(t, false)
	r := f.resolver(Options{Budget: 100 * time.Millisecond})
	f.push(t, "app:1", redis)
	f.hang = make(chan struct{})
	t.Cleanup(func() { close(f.hang) })
	// The registry answers only after the test, so an unbounded look-up would not return.
	_, err := r.Command(t.Context(), f.host()+"/app:1", image.PullRights{})
	require.ErrorContains(t, err, "no answer within 100ms")
}

func TestCachedCommandIsUsedWhileTheRegistryHangs(t *testing.T) {
	f := newRegistry(t, false)
	r := f.resolver(Options{Budget: time.Second})
	f.push(t, "app:1", redis)
	_, err := r.Command(t.Context(), f.host()+"/app:1", image.PullRights{})
	require.NoError(t, err)
	f.mu.Lock()
	f.hang = make(chan struct{})
	f.mu.Unlock()
	t.Cleanup(func() { close(f.hang) })
	command, err := r.Command(t.Context(), f.host()+"/app:1", image.PullRights{})
	require.NoError(t, err)
	assert.Equal(t, redisCommand, command)
}

func TestResolverReturnsCommandSharedByAllPlatforms(t *testing.T) {
	f := newRegistry(t, false)
	at := f.pushIndex(t, "app:1",
		imageOf(t, "linux", "amd64", redis),
		imageOf(t, "linux", "arm64", redis),
		imageOf(t, "windows", "amd64", v1.Config{Entrypoint: []string{`C:\redis.exe`}}),
		imageOf(t, "unknown", "unknown", v1.Config{}))
	command, err := f.resolver(Options{}).Command(t.Context(), at, image.PullRights{})
	require.NoError(t, err)
	assert.Equal(t, redisCommand, command)
}

// docs/reference/compatibility.md: command/platforms carried
func TestResolverReturnsTheDifferingCommandsOfAllPlatforms(t *testing.T) {
	f := newRegistry(t, false)
	differ := map[string]v1.Config{
		"entrypoint": {Entrypoint: []string{"other"}, Cmd: redis.Cmd, StopSignal: redis.StopSignal},
		"cmd":        {Entrypoint: redis.Entrypoint, Cmd: []string{"other"}, StopSignal: redis.StopSignal},
		"signal":     {Entrypoint: redis.Entrypoint, Cmd: redis.Cmd},
	}
	for what, config := range differ {
		t.Run(what, func(t *testing.T) {
			at := f.pushIndex(t, "app:"+what, imageOf(t, "linux", "amd64", redis), imageOf(t, "linux", "arm64", config))
			command, err := f.resolver(Options{}).Command(t.Context(), at, image.PullRights{})
			require.NoError(t, err)
			assert.Equal(t, image.Command{Platforms: map[string]image.Command{
				"amd64": redisCommand,
				"arm64": {Entrypoint: config.Entrypoint, Cmd: config.Cmd, StopSignal: config.StopSignal},
			}}, command)
		})
	}
}

// docs/reference/compatibility.md: command/platforms refused ImagePlatforms
func TestImageWithTwoCommandsPerArchitectureIsRefused(t *testing.T) {
	f := newRegistry(t, false)
	other := v1.Config{Entrypoint: []string{"other"}}
	for name, at := range map[string]string{
		"two of one architecture":     f.pushIndex(t, "app:1", imageOf(t, "linux", "amd64", redis), imageOf(t, "linux", "amd64", other)),
		"one without an architecture": f.pushIndex(t, "app:2", imageOf(t, "linux", "amd64", redis), imageOf(t, "linux", "", other)),
	} {
		_, err := f.resolver(Options{}).Command(t.Context(), at, image.PullRights{})
		require.ErrorIs(t, err, image.ErrPlatforms, name)
	}
}

func TestImageIndexWithoutLinuxIsRefused(t *testing.T) {
	f := newRegistry(t, false)
	at := f.pushIndex(t, "app:1", imageOf(t, "windows", "amd64", redis))
	_, err := f.resolver(Options{}).Command(t.Context(), at, image.PullRights{})
	require.ErrorIs(t, err, errPlatform)
}

func TestPlainHTTPRegistryIsRefusedUnlessAllowed(t *testing.T) {
	f := newRegistry(t, false)
	f.push(t, "app:1", redis)
	_, err := New(Options{Networks: loopback}).Command(t.Context(), f.host()+"/app:1", image.PullRights{})
	require.ErrorIs(t, err, errPlainHTTP)
}

// docs/reference/compatibility.md: command/private-ca carried
func TestResolverTrustsTheConfiguredPrivateCA(t *testing.T) {
	f := newRegistry(t, true)
	f.push(t, "app:1", redis)
	_, err := New(Options{Networks: loopback}).Command(t.Context(), f.host()+"/app:1", image.PullRights{})
	require.ErrorIs(t, err, errAway, "nobody vouches for it")
	require.ErrorContains(t, err, "--registry-ca", "a person learns which flag of webhook and inject is missing")
	pool := x509.NewCertPool()
	pool.AddCert(f.Certificate())
	command, err := New(Options{CAs: pool, Networks: loopback}).Command(t.Context(), f.host()+"/app:1", image.PullRights{})
	require.NoError(t, err)
	assert.Equal(t, redisCommand, command)
}

// A name that does not resolve is no question of certificates.
func TestUnknownHostOfARegistryIsAClassOfItsOwn(t *testing.T) {
	dns := &net.DNSError{Err: "no such host", Name: "registry.typo", IsNotFound: true}
	err := fail(&url.Error{Op: "Head", URL: "https://registry.typo/v2/", Err: &net.OpError{Op: "dial", Err: dns}}, nil)
	assert.Contains(t, err.Error(), "does not resolve (DNS)")
	assert.NotContains(t, err.Error(), "certificate")
	assert.NotContains(t, err.Error(), "typo")
}

func TestLookUpsOfOneImageShareOneRequest(t *testing.T) {
	f := newRegistry(t, false)
	r := f.resolver(Options{Budget: 10 * time.Second})
	f.push(t, "app:1", redis)
	f.hang = make(chan struct{})
	const pods = 50
	var wait sync.WaitGroup
	errs := make(chan error, pods)
	// One caller gives up while the registry hangs. The other callers must still get the command.
	impatient, giveUp := context.WithCancel(t.Context())
	wait.Go(func() {
		_, err := r.Command(impatient, f.host()+"/app:1", image.PullRights{})
		assert.ErrorIs(t, err, context.Canceled)
	})
	require.Eventually(t, func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.requests) > 0 }, time.Minute, time.Millisecond)
	for range pods {
		wait.Go(func() {
			_, err := r.Command(t.Context(), f.host()+"/app:1", image.PullRights{})
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

func TestHugeImageConfigurationIsRefused(t *testing.T) {
	f := newRegistry(t, false)
	f.push(t, "app:1", v1.Config{Entrypoint: []string{"app"}, Env: []string{strings.Repeat("x", maxAnswer)}})
	_, err := f.resolver(Options{Budget: 10 * time.Second}).Command(t.Context(), f.host()+"/app:1", image.PullRights{})
	require.ErrorIs(t, err, errSize)
}
