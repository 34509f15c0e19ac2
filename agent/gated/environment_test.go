// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gated

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
	cfg, err := ShimConfig(append(exec.Args()[1:], "serve"))
	require.NoError(t, err)
	assert.Equal(t, []string{
		"METAPARTICLE_SLOT=shards.deployment.web.11", "METAPARTICLE_FENCING_TOKEN=4711", "METAPARTICLE_SHARD=11", "METAPARTICLE_SHARDS=12",
	}, cfg.Env(held))
	exec.Shards = 0
	cfg, err = ShimConfig(append(exec.Args()[1:], "serve"))
	require.NoError(t, err)
	assert.Len(t, cfg.Env([]gate.SlotToken{{Slot: "lock.a", Token: "1"}}), 2)
}
