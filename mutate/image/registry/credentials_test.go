// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/mutate/image"
)

// secrets has pull secrets, and the service accounts that name them, by namespace/name.
type secrets struct {
	secrets  map[string]*corev1.Secret
	accounts map[string][]string
	asked    atomic.Int32
	// late, if set, delays each answer of Secret until the channel is closed.
	late chan struct{}
	// forbidden, if set, is the error of every call of Secret.
	forbidden error
}

func (s *secrets) PullSecrets(_ context.Context, namespace, account string) ([]string, error) {
	return s.accounts[namespace+"/"+account], nil
}

func (s *secrets) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	s.asked.Add(1)
	if s.forbidden != nil {
		return nil, s.forbidden
	}
	if s.late != nil {
		select {
		case <-s.late:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if secret := s.secrets[namespace+"/"+name]; secret != nil {
		return secret, nil
	}
	return nil, fmt.Errorf("secret %q not found", name)
}

func pullSecret(t *testing.T, key, password string) *corev1.Secret {
	t.Helper()
	text, err := json.Marshal(map[string]any{"auths": map[string]any{
		key: authn.AuthConfig{Username: "reader", Password: password},
	}})
	require.NoError(t, err)
	return &corev1.Secret{Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: text}}
}

// docs/reference/compatibility.md: command/secret-of-pod command/secret-of-account carried
func TestPullSecretsGiveAccessToAPrivateImage(t *testing.T) {
	f := newRegistry(t, false)
	f.passwords["private"] = "swordfish"
	digest := f.push(t, "private/app:1", redis)
	store := &secrets{
		secrets: map[string]*corev1.Secret{
			"shop/good":    pullSecret(t, f.host(), "swordfish"),
			"shop/path":    pullSecret(t, "https://"+f.host()+"/private", "swordfish"),
			"shop/wrong":   pullSecret(t, f.host(), "guess"),
			"shop/foreign": pullSecret(t, "elsewhere.example", "swordfish"),
			"shop/other":   pullSecret(t, f.host()+"/privat", "swordfish"),
			"shop/legacy": {Type: corev1.SecretTypeDockercfg, Data: map[string][]byte{
				corev1.DockerConfigKey: fmt.Appendf(nil, `{%q:{"auth":"cmVhZGVyOnN3b3JkZmlzaA=="}}`, "http://"+f.host()+"/v1/"),
			}},
			"shop/opaque": {Type: corev1.SecretTypeOpaque},
			"shop/broken": {Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte("swordfish")}},
		},
		accounts: map[string][]string{"shop/default": {"good"}, "shop/robot": {"wrong"}},
	}
	tests := map[string]struct {
		rights image.PullRights
		fails  bool
	}{
		"named by the pod":                   {rights: image.PullRights{Secrets: []string{"good"}}},
		"of the service account":             {rights: image.PullRights{}},
		"of a named service account":         {rights: image.PullRights{ServiceAccount: "robot"}, fails: true},
		"scoped to a path":                   {rights: image.PullRights{Secrets: []string{"path"}}},
		"legacy":                             {rights: image.PullRights{Secrets: []string{"legacy"}}},
		"the second fits":                    {rights: image.PullRights{Secrets: []string{"foreign", "wrong", "good"}}},
		"wrong":                              {rights: image.PullRights{Secrets: []string{"wrong"}}, fails: true},
		"for another registry":               {rights: image.PullRights{Secrets: []string{"foreign"}}, fails: true},
		"for a path with the same beginning": {rights: image.PullRights{Secrets: []string{"other"}}, fails: true},
		"missing":                            {rights: image.PullRights{Secrets: []string{"none"}}, fails: true},
		"missing, another fits":              {rights: image.PullRights{Secrets: []string{"none", "good"}}},
		"not a pull secret":                  {rights: image.PullRights{Secrets: []string{"opaque"}}, fails: true},
		"broken":                             {rights: image.PullRights{Secrets: []string{"broken"}}, fails: true},
	}
	r := f.resolver(Options{Secrets: store})
	for what, test := range tests {
		t.Run(what, func(t *testing.T) {
			test.rights.Namespace = "shop"
			for _, named := range []string{f.host() + "/private/app:1", digest} {
				command, err := r.Command(t.Context(), named, test.rights)
				if test.fails {
					require.ErrorIs(t, err, errDenied)
					assert.EqualError(t, err, errDenied.Error(), "the same, whatever the namespace's secrets are")
					continue
				}
				require.NoError(t, err)
				assert.Equal(t, redisCommand, command)
			}
		})
	}
}

// If the key of the cache were the image's name alone, every tenant who guesses the name
// would get another tenant's private configuration.
func TestPrivateImageCommandIsHiddenFromOtherNamespaces(t *testing.T) {
	f := newRegistry(t, false)
	f.passwords["private"] = "swordfish"
	digest := f.push(t, "private/app:1", redis)
	store := &secrets{secrets: map[string]*corev1.Secret{"rich/pull": pullSecret(t, f.host(), "swordfish")}}
	r := f.resolver(Options{Secrets: store})
	rich := image.PullRights{Namespace: "rich", Secrets: []string{"pull"}}
	poor := image.PullRights{Namespace: "poor", Secrets: []string{"pull"}}
	for _, named := range []string{digest, f.host() + "/private/app:1"} {
		_, err := r.Command(t.Context(), named, rich)
		require.NoError(t, err)
	}
	for _, gone := range []bool{false, true} {
		f.away.Store(gone)
		for _, named := range []string{digest, f.host() + "/private/app:1"} {
			_, err := r.Command(t.Context(), named, rich)
			require.NoError(t, err, "image %s, registry away: %v", named, gone)
			_, err = r.Command(t.Context(), named, poor)
			require.Error(t, err, "image %s, registry away: %v", named, gone)
		}
	}
}

func TestNamespacesNeverShareOneImageLookUp(t *testing.T) {
	f := newRegistry(t, false)
	f.passwords["private"] = "swordfish"
	f.push(t, "private/app:1", redis)
	store := &secrets{secrets: map[string]*corev1.Secret{"rich/pull": pullSecret(t, f.host(), "swordfish")}}
	r := f.resolver(Options{Secrets: store, Budget: 10 * time.Second})
	f.hang = make(chan struct{})
	var wait sync.WaitGroup
	for tenant, check := range map[string]func(assert.TestingT, error, ...any) bool{"rich": assert.NoError, "poor": assert.Error} {
		wait.Go(func() {
			_, err := r.Command(t.Context(), f.host()+"/private/app:1", image.PullRights{Namespace: tenant, Secrets: []string{"pull"}})
			check(t, err)
		})
	}
	require.Eventually(t, func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.requests) >= 2 }, time.Minute, time.Millisecond)
	close(f.hang)
	wait.Wait()
}

func TestResolverReadsOnlyPullSecretsOfThePod(t *testing.T) {
	f := newRegistry(t, false)
	f.push(t, "app:1", redis)
	store := &secrets{secrets: map[string]*corev1.Secret{"shop/pull": pullSecret(t, f.host(), "x")}}
	_, err := f.resolver(Options{Secrets: store}).Command(t.Context(), f.host()+"/app:1", image.PullRights{Namespace: "shop"})
	require.NoError(t, err)
	assert.Zero(t, store.asked.Load())
}

func TestPullSecretKeysMatchImagesAsInKubelet(t *testing.T) {
	tests := []struct {
		key, image string
		fits       bool
	}{
		{"registry.example", "registry.example/a/b", true},
		{"registry.example:5000", "registry.example/a/b", false},
		{"registry.example:5000", "registry.example:5000/a/b", true},
		{"*.example", "registry.example/a", true},
		{"*.example", "deep.registry.example/a", false},
		{"reg*.example", "registry.example/a", true},
		{"https://registry.example/v2/", "registry.example/a", true},
		{"registry.example/a", "registry.example/a/b", true},
		{"registry.example/a", "registry.example/ab", false},
		{"https://" + name.DefaultRegistry + "/v1/", "redis", true},
		{name.DefaultRegistry, "team/app", true},
		{name.DefaultRegistry + "/team", "redis", false},
		{"[", "registry.example/a", false},
		{"", "registry.example/a", false},
	}
	for _, test := range tests {
		t.Run(test.key+" for "+test.image, func(t *testing.T) {
			ref, err := name.ParseReference(test.image)
			require.NoError(t, err)
			host, path := splitKey(test.key)
			assert.Equal(t, test.fits, credential{host: host, path: path}.fits(ref.Context()))
		})
	}
}

func TestPullSecretsAreReadOncePerPod(t *testing.T) {
	f := newRegistry(t, false)
	f.passwords["private"] = "swordfish"
	store := &secrets{secrets: map[string]*corev1.Secret{"shop/good": pullSecret(t, f.host(), "swordfish"), "shop/other": pullSecret(t, f.host(), "x")}}
	r := f.resolver(Options{Secrets: store, Budget: 10 * time.Second})
	for pod := range 2 {
		reader := r.For(image.PullRights{Namespace: "shop", Secrets: []string{"good", "other"}})
		var images []string
		for n := range 10 {
			images = append(images, fmt.Sprintf("private/app%d:%d", n, pod))
			f.push(t, images[n], redis)
		}
		var wait sync.WaitGroup
		for _, named := range images {
			wait.Go(func() {
				_, err := reader.Command(t.Context(), f.host()+"/"+named)
				assert.NoError(t, err)
			})
		}
		wait.Wait()
		assert.EqualValues(t, 2*(pod+1), store.asked.Load(), "each pod reads what its secrets are now")
	}
}

func TestEntriesAndBytesOfPullSecretsAreBounded(t *testing.T) {
	f := newRegistry(t, false)
	f.passwords["private"] = "swordfish"
	f.push(t, "private/app:1", redis)
	auths := map[string]authn.AuthConfig{}
	for i := range 1000 {
		auths[fmt.Sprintf("r%d.example", i)] = authn.AuthConfig{Username: "a", Password: "b"}
	}
	text, err := json.Marshal(map[string]any{"auths": auths})
	require.NoError(t, err)
	many := &corev1.Secret{Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: text}}
	large := pullSecret(t, f.host(), strings.Repeat("x", maxSecretBytes))
	for what, secret := range map[string]*corev1.Secret{"entries": many, "bytes": large} {
		t.Run(what, func(t *testing.T) {
			var k keyring
			store := &secrets{secrets: map[string]*corev1.Secret{"shop/pull": secret}}
			k.fill(t.Context(), store, image.PullRights{Namespace: "shop", Secrets: []string{"pull"}})
			assert.LessOrEqual(t, len(k.all), maxCredentials)
			require.ErrorIs(t, k.unread, errTooMany)
			_, err := f.resolver(Options{Secrets: store}).Command(t.Context(), f.host()+"/private/app:1", image.PullRights{Namespace: "shop", Secrets: []string{"pull"}})
			require.ErrorContains(t, err, errTooMany.Error(), "the pod's author hears why")
		})
	}
}

// A pod keeps its credentials until the webhook's answer. Hundreds of pods may wait for their images at
// the same time.
func TestCredentialsOfOnePodTakeLittleMemory(t *testing.T) {
	long := strings.Repeat("x", 40<<10)
	zeros := make([]byte, 80<<10)
	for what, secret := range map[string]func(host string) *corev1.Secret{
		"long passwords": func(host string) *corev1.Secret { return pullSecret(t, host, long) },
		"long schemes":   func(host string) *corev1.Secret { return pullSecret(t, long+"://"+host, "swordfish") },
		"long paths": func(host string) *corev1.Secret {
			return pullSecret(t, host+"/app"+strings.Repeat("/", 80<<10), "swordfish")
		},
		"long codes": func(host string) *corev1.Secret {
			code := base64.StdEncoding.EncodeToString(append([]byte("reader:swordfish"), zeros...))
			return &corev1.Secret{Type: corev1.SecretTypeDockercfg, Data: map[string][]byte{
				corev1.DockerConfigKey: fmt.Appendf(nil, `{%q: {"auth": %q}}`, host, code),
			}}
		},
	} {
		t.Run(what, func(t *testing.T) {
			store := &secrets{secrets: map[string]*corev1.Secret{}}
			var names []string
			for i := range maxSecrets {
				name := fmt.Sprint("pull-", i)
				names = append(names, name)
				store.secrets["shop/"+name] = secret(fmt.Sprintf("r%d.example", i))
			}
			store.secrets["shop/first"] = pullSecret(t, "first.example", "swordfish")
			keyrings := make([]keyring, 20)
			before := heap()
			for i := range keyrings {
				keyrings[i].fill(t.Context(), store, image.PullRights{Namespace: "shop", Secrets: append([]string{"first"}, names[1:]...)})
				require.True(t, keyrings[i].unread == nil || errors.Is(keyrings[i].unread, errTooMany), "%v", keyrings[i].unread)
				assert.Equal(t, "first.example", keyrings[i].all[0].host)
			}
			assert.Less(t, grew(before), uint64(len(keyrings)*150<<10))
			runtime.KeepAlive(keyrings)
			runtime.KeepAlive(store)
		})
	}
}

// Without the right to read secrets, the webhook reads no secret. So the error tells nothing about
// the secrets.
func TestImageErrorNamesTheMissingRightToSecrets(t *testing.T) {
	f := newRegistry(t, false)
	f.passwords["private"] = "swordfish"
	f.push(t, "private/app:1", redis)
	store := &secrets{forbidden: MayNotRead("bind the role")}
	_, err := f.resolver(Options{Secrets: store}).Command(t.Context(), f.host()+"/private/app:1", image.PullRights{Namespace: "shop", Secrets: []string{"pull"}})
	require.EqualError(t, err, errDenied.Error()+"; bind the role")
}
