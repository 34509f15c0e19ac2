// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestClaimOfShardsHasOneSlotPerShard(t *testing.T) {
	r, err := Parse(map[string]string{ShardsAnnotation: "3"})
	require.NoError(t, err)
	of := Workload{"apps", "Deployment", "web.1"}
	assert.Equal(t, []string{"shards.deployment.web.1.0", "shards.deployment.web.1.1", "shards.deployment.web.1.2"}, r.Slots(of))
	assert.True(t, r.Any())
	assert.Equal(t, 3, r.Shards())
	assert.False(t, r.TakesTurns())
	claim, ok := r.Within(ScopeWorkload)
	require.True(t, ok)
	assert.Equal(t, Shards, claim.Kind)
	assert.Equal(t, ScopeWorkload, ScopeOf("shards.deployment.web.0"))

	one, err := Parse(map[string]string{ShardsAnnotation: "1"})
	require.NoError(t, err)
	assert.False(t, one.Any())
	assert.Equal(t, 1, one.Shards())
	none, err := Parse(map[string]string{SemaphoreAnnotation: "pool=3"})
	require.NoError(t, err)
	assert.Zero(t, none.Shards())
}

func TestErrorExplainsWhyShardsAnnotationIsInvalid(t *testing.T) {
	for _, value := range []string{"", "0", "65", "-1", "03", "3.0", "x", "true", "3,4", " 3"} {
		_, err := Parse(map[string]string{ShardsAnnotation: value})
		require.Error(t, err, value)
		assert.Contains(t, err.Error(), "write how many shards the work has: a number from 1 to 64")
	}
	for key, want := range map[string]string{
		GateAnnotation + "=pod":                  `metaparticle.io/gate is "pod", but with metaparticle.io/shards a shim must tell the application its shard: remove one of the two`,
		GateAnnotation + "=readiness":            `metaparticle.io/gate is "readiness", but with metaparticle.io/shards a shim must tell the application its shard: remove one of the two`,
		LockAnnotation + "=a":                    "metaparticle.io/shards cannot be in one pod with metaparticle.io/lock: remove one of the two",
		LocalAnnotation + "=lock/a":              "metaparticle.io/api cannot be in one pod with metaparticle.io/shards: remove one of the two",
		ReadinessAnnotation + "=forward":         `metaparticle.io/readiness is "forward", but with metaparticle.io/shards only the holders are Ready, because several pods can hold: remove it`,
		EndpointDelayAnnotation + "=1s":          "metaparticle.io/endpoint-delay has no effect here, because standbys that are never Ready forward nothing: remove it",
		AfterAnnotation + "=shards.deployment.a": `metaparticle.io/after is "shards.deployment.a": "shards.deployment.a" is no condition: write once.NAME=KEY, shards.job.NAME, lock.NAME or a singleton's Lease, as in singleton.deployment.db`,
	} {
		name, value, _ := strings.Cut(key, "=")
		_, err := Parse(map[string]string{ShardsAnnotation: "3", name: value})
		require.Error(t, err, key)
		assert.Equal(t, want, err.Error())
	}
}

func TestShardLeaseNameHasOnlyOneSpelling(t *testing.T) {
	long := strings.Repeat("x", 253)
	for _, of := range []Workload{
		{"apps", "Deployment", "web"}, {"apps", "StatefulSet", "a.1"}, {"apps", "Deployment", long}, {"apps", "Deployment", long[:228]}, {"apps", "Deployment", long[:229]},
		{long, "Rollout", "a"}, {"my-group.example.com", "Rollout", "1"},
	} {
		group := ShardGroup(of)
		for _, n := range []int{0, 9, 31} {
			lease := ShardLease(group, n)
			require.LessOrEqual(t, len(lease), maxName)
			again, shard, ok := ReadShard(lease)
			require.True(t, ok, lease)
			assert.Equal(t, group, again)
			assert.Equal(t, n, shard)
			assert.True(t, IsSlot(lease))
		}
	}
	assert.NotEqual(t, ShardGroup(Workload{"apps", "Deployment", long}), ShardGroup(Workload{"apps", "Deployment", long[:252]}))
	for _, lease := range []string{
		"shards", "shards.", "shards.0", "shards.deployment.0", "shards.deployment.web", "shards.deployment.web.64", "shards.deployment.web.01", "shards.deployment.web.-1",
		"shards.deployment.web.", "shards.Deployment.web.0", "shards.deployment..0", "lock.web.0", "shards.deployment." + long + ".0", "next.shards.deployment.web.0",
	} {
		_, _, ok := ReadShard(lease)
		assert.False(t, ok, lease)
		assert.False(t, isShardSlot(lease))
	}
}

func TestShardGroupNeedsConsecutiveShardNumbersFromZero(t *testing.T) {
	slots := Claim{Kind: Shards, Size: 12}.Slots(Workload{"apps", "Deployment", "web"})
	group, count := ShardsOf(slots)
	assert.Equal(t, "shards.deployment.web", group)
	assert.Equal(t, 12, count)
	for _, slots := range [][]string{
		nil, {"lock.a"}, {"shards.deployment.web.1"}, {"shards.deployment.web.0", "shards.deployment.web.0"},
		{"shards.deployment.web.0", "shards.deployment.api.1"}, {"shards.deployment.web.0", "shards.deployment.web.2"}, {"shards.deployment.web.0", "lock.a"},
	} {
		_, count := ShardsOf(slots)
		assert.Zero(t, count, slots)
	}
}

func TestStampHasOnlyOneSpelling(t *testing.T) {
	for text, s := range map[string]Stamp{"1/3": {Epoch: 1, Count: 3}, "12/64 closed": {Epoch: 12, Count: 64, Closed: true}, "": {}, "2/8/1-a": {Epoch: 2, Count: 8, Run: "1-a"}, "2/8/1-a closed": {Epoch: 2, Count: 8, Run: "1-a", Closed: true}} {
		assert.Equal(t, text, s.String())
		assert.Equal(t, s, ParseStamp(text))
	}
	for _, text := range []string{"1", "1/", "/3", "0/3", "1/0", "1/65", "01/3", "1/03", "1/3 ", "1/3 open", "1/3  closed", "1/3 closed closed", "-1/3", "x", "1/3/closed", "1/3/", "1/3/A", "1/3/1/2", "1/3/" + strings.Repeat("1", 37), "9007199254740993/3"} {
		assert.Equal(t, Stamp{}, ParseStamp(text), text)
	}
}

func TestStampAdmitsOnlyItsRunAndShardCount(t *testing.T) {
	assert.True(t, Stamp{Epoch: 1, Count: 3}.Admits(3, ""))
	assert.False(t, Stamp{Epoch: 1, Count: 3}.Admits(5, ""))
	assert.False(t, Stamp{Epoch: 1, Count: 3, Closed: true}.Admits(3, ""))
	assert.False(t, Stamp{}.Admits(0, ""))
	assert.True(t, Stamp{Epoch: 1, Count: 3, Run: "a"}.Admits(3, "a"))
	assert.False(t, Stamp{Epoch: 1, Count: 3, Run: "a"}.Admits(3, "b"))
	assert.False(t, Stamp{Epoch: 1, Count: 3, Run: "a"}.Admits(3, ""))
	assert.False(t, Stamp{Epoch: 1, Count: 3}.Admits(3, "a"))
}

func TestConditionOnShardsNamesAllPossibleLeases(t *testing.T) {
	for text, job := range map[string]string{"shards.job.map": "map", "shards.job.map.3": "map.3", "shards.cronjob.night": "", "shards.jobset-x--k8s-io.a": ""} {
		r, err := Parse(map[string]string{AfterAnnotation: text})
		require.NoError(t, err, text)
		require.Len(t, r.After, 1)
		assert.True(t, r.After[0].Sharded(), text)
		assert.Equal(t, job, r.After[0].Job(), text)
		assert.Len(t, r.After[0].Leases(), 64)
		for i, lease := range r.After[0].Leases() {
			group, n, ok := ReadShard(lease)
			assert.True(t, ok && group == text && n == i, lease)
		}
	}
	for _, text := range []string{"shards.deployment.web", "shards.job", "shards.", "shards.job.map=7x", "shards.job.map="} {
		_, err := Parse(map[string]string{AfterAnnotation: text})
		assert.Error(t, err, text)
	}
}

func TestConditionOnShardsGetsUIDOfTheirJob(t *testing.T) {
	runs := map[string]string{"map": "1-a", "bad": "$(X)"}
	all := []Condition{{Lease: "shards.job.map"}, {Lease: "shards.job.bad"}, {Lease: "shards.job.new"}, {Lease: "shards.job.map", Key: "2"}, {Lease: "lock.map"}}
	named := InRuns(all, runs)
	assert.Equal(t, "1-a", named[0].Key)
	assert.Equal(t, all[1:], named[1:])
	assert.Empty(t, all[0].Key, "the argument stays")
	r := Request{After: named}
	_, own := r.MetBySelf([]string{"shards.job.map.0"}, "1-a")
	assert.True(t, own)
	_, own = r.MetBySelf([]string{"shards.job.map.0"}, "3")
	assert.False(t, own)
}
