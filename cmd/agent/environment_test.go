// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/api"
)

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
