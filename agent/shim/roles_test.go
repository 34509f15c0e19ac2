// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/api"
)

func TestHookIsHandledAsByTheKubelet(t *testing.T) {
	get := func(_ context.Context, get api.HTTPGetAction, podIP string) error {
		assert.Equal(t, "/warm", get.Path)
		assert.Equal(t, "192.0.2.1", podIP)
		return nil
	}
	t.Setenv(api.PodIPEnv, "192.0.2.1")
	for hook, want := range map[string]int{
		`{"httpGet":{"path":"/warm"}}`: 0,
		`{"sleep":{"seconds":0}}`:      0,
		`{"tcpSocket":{"port":1}}`:     1,
		`{}`:                           1,
		`{`:                            api.ExitUsage,
	} {
		code, _ := HandleRole(t.Context(), []string{hook}, get)
		assert.Equal(t, want, code, hook)
	}
	_, err := HandleRole(t.Context(), nil, get)
	assert.Error(t, err)
}

func TestShimRunsSleepHookWithAgentsHandleCommand(t *testing.T) {
	cfg, err := ParseConfig([]string{
		"-container", "app", "-grace", "7s",
		"-post-start", `{"exec":{"command":["warm","up"]}}`, "-pre-stop", `{"sleep":{"seconds":1}}`, "--", "app",
	})
	require.NoError(t, err)
	assert.Equal(t, []string{"warm", "up"}, cfg.PostStart.Command)
	assert.Nil(t, cfg.PostStart.Env)
	assert.Equal(t, []string{"handle", `{"sleep":{"seconds":1}}`}, cfg.PreStop.Command[1:])
	assert.Equal(t, []string{"METAPARTICLE_POD_IP=192.0.2.1"}, cfg.PreStop.Env("192.0.2.1"))
	for _, bad := range []string{`{`, `{"exec":{}}`} {
		_, err := ParseConfig([]string{"-container", "app", "-post-start", bad, "--", "app"})
		assert.Error(t, err, bad)
	}
}

func TestShimOfHTTPHooksNeedsAnotherProgram(t *testing.T) {
	config := func(hook string) Config {
		t.Helper()
		cfg, err := ParseConfig([]string{"-container", "app", "-pre-stop", hook, "--", "app"})
		require.NoError(t, err)
		return cfg
	}
	self, err := os.Executable()
	require.NoError(t, err)
	cfg := config(`{"httpGet":{"port":80}}`)
	assert.True(t, cfg.HTTP)
	assert.Equal(t, filepath.Join(filepath.Dir(self), api.HookProgram), cfg.PreStop.Command[0])
	cfg = config(`{"sleep":{"seconds":1}}`)
	assert.False(t, cfg.HTTP)
	assert.Equal(t, self, cfg.PreStop.Command[0])
}

func TestEnvironmentOfTheApplicationContainsItsShard(t *testing.T) {
	held := []api.Token{{Slot: "shards.deployment.web.11", Token: "4711"}}
	exec := api.DefaultExecArgs()
	exec.Container, exec.Shards = "app", 12
	cfg, err := ParseConfig(append(exec.Args()[1:], "serve"))
	require.NoError(t, err)
	assert.Equal(t, []string{
		"METAPARTICLE_SLOT=shards.deployment.web.11", "METAPARTICLE_FENCING_TOKEN=4711", "METAPARTICLE_SHARD=11", "METAPARTICLE_SHARDS=12",
	}, cfg.Env(held))
	exec.Shards = 0
	cfg, err = ParseConfig(append(exec.Args()[1:], "serve"))
	require.NoError(t, err)
	assert.Len(t, cfg.Env([]api.Token{{Slot: "lock.a", Token: "1"}}), 2)
}
