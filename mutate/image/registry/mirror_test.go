// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/mutate/image"
)

// docs/reference/compatibility.md: command/mirror carried
func TestMirrorIsReadBeforeTheRegistry(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	for name, c := range map[string]struct {
		mirror func(t *testing.T, m *fakeRegistry)
		want   string
		origin bool
	}{
		"has it":      {func(t *testing.T, m *fakeRegistry) { m.push(t, "hub/team/app:1", v1.Config{Cmd: []string{"mirror"}}) }, "mirror", false},
		"lacks it":    {func(*testing.T, *fakeRegistry) {}, "origin", true},
		"is away":     {func(_ *testing.T, m *fakeRegistry) { m.away.Store(true) }, "origin", true},
		"hangs":       {func(_ *testing.T, m *fakeRegistry) { m.hang = hang }, "origin", true},
		"refuses all": {func(_ *testing.T, m *fakeRegistry) { m.passwords["hub"] = "secret" }, "origin", true},
		"has no Linux": {func(t *testing.T, m *fakeRegistry) {
			m.pushIndex(t, "hub/team/app:1", imageOf(t, "windows", "amd64", v1.Config{}))
		}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			m, origin := newRegistry(t, false), newRegistry(t, false)
			c.mirror(t, m)
			origin.push(t, "team/app:1", v1.Config{Cmd: []string{"origin"}})
			mirror, err := ParseMirror(origin.host() + "=" + m.host() + "/hub")
			require.NoError(t, err)
			r := origin.resolver(Options{PlainHTTP: []string{m.host()}, Mirrors: []Mirror{mirror}, Budget: 2 * time.Second})
			command, err := r.Command(t.Context(), origin.host()+"/team/app:1", image.PullRights{})
			assert.Equal(t, c.origin, origin.seen("") > 0, "the registry was asked")
			if c.want == "" {
				require.ErrorIs(t, err, errPlatform, "what the mirror has is what the node runs")
				return
			}
			require.NoError(t, err)
			assert.Equal(t, []string{c.want}, command.Cmd)
		})
	}
}

func TestMirrorServesImagesByDigest(t *testing.T) {
	m, origin := newRegistry(t, false), newRegistry(t, false)
	redisImage := imageOf(t, "linux", "amd64", redis)
	digest, err := redisImage.Digest()
	require.NoError(t, err)
	m.push(t, "team/app:1", redis)
	mirror, err := ParseMirror("registry.example=" + m.host())
	require.NoError(t, err)
	origin.away.Store(true)
	r := m.resolver(Options{Mirrors: []Mirror{mirror}})
	_, err = r.Command(t.Context(), "registry.example/team/app@"+digest.String(), image.PullRights{})
	require.NoError(t, err)
	assert.Zero(t, origin.seen(""))
}

func TestShortImageNamesUseDockerHubsMirror(t *testing.T) {
	mirror, err := ParseMirror("docker.io=mirror.example:5000")
	require.NoError(t, err)
	places, err := New(Options{Mirrors: []Mirror{mirror}}).places("redis")
	require.NoError(t, err)
	require.Len(t, places, 2)
	assert.Equal(t, "mirror.example:5000/library/redis:latest", places[0].Name())
	assert.Equal(t, "index.docker.io/library/redis:latest", places[1].Name())
}

func TestMirrorWithoutADotIsAHost(t *testing.T) {
	mirror, err := ParseMirror("docker.io=mirror/hub")
	require.NoError(t, err)
	places, err := New(Options{Mirrors: []Mirror{mirror}}).places("redis")
	require.NoError(t, err)
	assert.Equal(t, "mirror", places[0].Context().RegistryStr())
	assert.Equal(t, "mirror/hub/library/redis:latest", places[0].Name())
}

// A resolver with such a mirror refused each image of the registry. The node's container runtime
// writes mirrors as URLs.
func TestMalformedMirrorIsRefusedWithTheRightForm(t *testing.T) {
	const form, registry, mirror = "write REGISTRY=MIRROR, such as docker.io=mirror.example:5000", "write the registry as HOST or HOST:PORT", "write the mirror as HOST[:PORT][/PATH]"
	for s, want := range map[string]string{
		"docker.io": form, "=x": form, "docker.io=": form, "https://docker.io=m": registry, "docker.io/library=m": registry,
		"docker.io=a b": mirror, "docker.io=http://mirror:5000": mirror, "docker.io=https://mirror": mirror, "docker.io=mirror/HUB": mirror,
		"docker.io=a=b": mirror,
	} {
		_, err := ParseMirror(s)
		assert.ErrorContains(t, err, want, s)
	}
}
