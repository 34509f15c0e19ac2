// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/agent/ends"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/api"
)

const shardZero, shardOne = "shards.deployment.web.0", "shards.deployment.web.1"

// shardsSeen returns two shards with a stamp, as a standby sees them.
func shardsSeen(stamp string) []elector.View {
	var all []elector.View
	for _, name := range []string{shardZero, shardOne} {
		all = append(all, elector.View{Slot: name, Known: true, ExpiresAt: time.Minute, Record: &lease.Record{Holder: "b_1", Hold: "1", Stamp: api.ParseStamp(stamp), Profile: lease.Profile{Workload: "Deployment/web"}}})
	}
	return all
}

func TestStandbyOfShardsIsReadyOnlyWithoutPorts(t *testing.T) {
	budget, err := api.NewBudget(api.DefaultLeaseDuration)
	require.NoError(t, err)
	for name, test := range map[string]struct {
		mode      api.Readiness
		stamp     string
		childless bool
		ready     bool
		reason    string
		message   string
	}{
		"no ports":                {api.ReadinessAll, "1/2", true, true, ReadyStandingBy, "this pod takes the first shard that becomes free"},
		"no ports, closed":        {api.ReadinessAll, "2/3 closed", true, true, ReadyNumberWaits, shardZero + " is closed until no pod holds a shard of another number than 3"},
		"no ports, other number":  {api.ReadinessAll, "2/3", true, true, ReadyNumberWaits, shardZero + " is for 3 shards, and this pod is for 2"},
		"no ports, no stamp":      {api.ReadinessAll, "", true, true, ReadyNumberWaits, shardZero + " has no stamp of the number of shards yet"},
		"no ports, a child lives": {api.ReadinessAll, "1/2", false, false, ReadyChildRunning, "a child of an earlier hold has not ended yet"},
		"ports":                   {api.ReadinessHolder, "1/2", true, false, ReadyStandingBy, "b holds " + shardZero},
		"ports, closed":           {api.ReadinessHolder, "2/3 closed", true, false, ReadyNumberWaits, shardZero + " is closed until no pod holds a shard of another number than 3"},
	} {
		r := NewReadiness(ReadinessConfig{Need: api.Need{Slots: []string{shardZero, shardOne}, Shards: 2}, Mode: test.mode, Budget: budget, Workload: "Deployment/web", Identity: "a_1"})
		shown := r.Standby(time.Second, shardsSeen(test.stamp), Turn{}, test.childless)
		assert.Equal(t, test.ready, shown.Ready, name)
		assert.Equal(t, test.reason, shown.Reason, name)
		if test.mode == api.ReadinessAll {
			assert.Equal(t, test.message, shown.Message, name)
		}
		assert.Empty(t, shown.Shard, name)
	}
}

func TestPodStatusExplainsWhyShardCannotBeAcquired(t *testing.T) {
	for stamp, want := range map[string]string{
		"2/3/a closed": " is closed until no pod of another run, or of another number than 3, holds a shard",
		"1/3/b":        " is for the run of the Job b, and this pod is of another run",
		"2/4/a":        " is for 4 shards, and this pod is for 3",
	} {
		assert.Equal(t, shardZero+want, closedOf(shardZero, api.ParseStamp(stamp), 3, "a"))
	}
}

func TestPodLabelContainsTheNumberOfItsShard(t *testing.T) {
	labels := func(a Appearance, sharded bool) map[string]any {
		raw, err := a.patch(time.Unix(1, 0), a.metadata(kube.Pod{ResourceVersion: "1"}, sharded))
		require.NoError(t, err)
		var patch struct {
			Metadata struct{ Labels map[string]any }
		}
		require.NoError(t, json.Unmarshal(raw, &patch))
		return patch.Metadata.Labels
	}
	budget, err := api.NewBudget(api.DefaultLeaseDuration)
	require.NoError(t, err)
	r := NewReadiness(ReadinessConfig{Need: api.Need{Slots: []string{shardZero, shardOne}, Shards: 2}, Mode: api.ReadinessAll, Budget: budget})
	holds := r.Holder(time.Second, Holder{Hold: "1", Slots: []string{shardOne}, Serves: true}).Appearance
	assert.Equal(t, "1", holds.Shard)
	assert.Equal(t, map[string]any{api.RoleLabel: api.RoleHolder, api.ShardLabel: "1"}, labels(holds, true))
	drains := r.Draining(time.Minute, "1", ends.ShardsChanged.Reason, 0, false).Appearance
	assert.Equal(t, "1", drains.Shard, "a draining pod still holds")
	assert.Equal(t, map[string]any{api.RoleLabel: nil, api.ShardLabel: nil}, labels(Appearance{Ready: true}, true), "null takes the labels away")
	assert.Equal(t, map[string]any{api.RoleLabel: api.RoleHolder}, labels(Appearance{Hold: "1"}, false), "other pods keep a label of that name")
}
