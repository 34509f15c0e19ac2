// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/api"
)

func TestEnvironmentOfTheApplicationContainsItsShard(t *testing.T) {
	held := []gate.SlotToken{{Slot: "shards.deployment.web.11", Token: "4711"}}
	exec := api.DefaultExecArgs()
	exec.Container, exec.Shards = "app", 12
	cfg, err := execConfig(append(exec.Args()[1:], "serve"))
	require.NoError(t, err)
	assert.Equal(t, []string{
		"METAPARTICLE_SLOT=shards.deployment.web.11", "METAPARTICLE_FENCING_TOKEN=4711", "METAPARTICLE_SHARD=11", "METAPARTICLE_SHARDS=12",
	}, cfg.Env(held))
	exec.Shards = 0
	cfg, err = execConfig(append(exec.Args()[1:], "serve"))
	require.NoError(t, err)
	assert.Len(t, cfg.Env([]gate.SlotToken{{Slot: "lock.a", Token: "1"}}), 2)
}

func TestAgentDerivesShardCountFromItsSlots(t *testing.T) {
	run := api.DefaultRunArgs()
	run.Slots, run.Any, run.Readiness = api.Claim{Kind: api.Shards, Size: 3}.Slots(api.Workload{Group: "apps", Kind: "Deployment", Name: "web"}), true, api.ReadinessAll
	s, err := parseRun(run.Args()[1:], func(string) string { return "" })
	require.NoError(t, err)
	assert.Equal(t, 3, s.config.Shards)
	run.Slots, run.Any = []string{"lock.a"}, false
	s, err = parseRun(run.Args()[1:], func(string) string { return "" })
	require.NoError(t, err)
	assert.Zero(t, s.config.Shards)
}
