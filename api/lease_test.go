// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSingletonLeaseNameContainsClaimNameAndWorkload(t *testing.T) {
	tests := []struct {
		workload Workload
		name     string
		want     string
	}{
		{Workload{"apps", "Deployment", "biller"}, "", "singleton.deployment.biller"},
		{Workload{"apps", "Deployment", "biller"}, "writer", "singleton-writer.deployment.biller"},
		{Workload{"batch", "CronJob", "biller"}, "", "singleton.cronjob.biller"},
		{Workload{"", "Pod", "a.b"}, "", "singleton.pod.a.b"},
		{Workload{"example.com", "Rollout", "r"}, "", "singleton.rollout-example-com.r"},
	}
	for _, test := range tests {
		assert.Equal(t, test.want, SingletonLease(test.workload, test.name))
	}
	assert.Equal(t, "lock.a.b", LockLease("a.b"))
}

// TestDifferentSingletonsHaveDifferentLeases compares singletons with similar names.
func TestDifferentSingletonsHaveDifferentLeases(t *testing.T) {
	type singleton struct {
		workload Workload
		name     string
	}
	var all []singleton
	groups := []string{"", "a", "a.b", "a-b", "a--b", "b.a.b", "a.b.c", "b"}
	kinds := []string{"Kind", "Kind-a", "Kind--a", "Kind-a-b", "A"}
	names := []string{"", "a", "a-b", "lock"}
	workloads := []string{"x", "a.x", "kind.x", "deployment.x", strings.Repeat("l", 253), strings.Repeat("l", 252) + "m"}
	for _, g := range groups {
		for _, k := range kinds {
			for _, n := range names {
				for _, w := range workloads {
					all = append(all, singleton{Workload{g, k, w}, n})
				}
			}
		}
	}
	seen := map[string]singleton{"lock.a.x": {}, "lock.singleton.kind.x": {}}
	for _, s := range all {
		lease := SingletonLease(s.workload, s.name)
		require.LessOrEqual(t, len(lease), 253)
		require.True(t, isSubdomain(lease), lease)
		other, taken := seen[lease]
		require.False(t, taken, "%+v and %+v share %s", s, other, lease)
		seen[lease] = s
	}
}

func TestSlotsOfParsedAnnotationsAreSorted(t *testing.T) {
	r := Request{Claimed: claimed(named("a"), lock("b"), lock("z"))}
	assert.Equal(t,
		[]string{"lock.b", "lock.z", "singleton-a.deployment.x"},
		r.Slots(Workload{"apps", "Deployment", "x"}))
	assert.Empty(t, Request{}.Slots(Workload{"apps", "Deployment", "x"}))
}

func TestWorkloadIsPrintedWithKubernetesKindAndName(t *testing.T) {
	assert.Equal(t, "Deployment/x", Workload{"apps", "Deployment", "x"}.String())
	assert.Equal(t, "Rollout.example.com/x", Workload{"example.com", "Rollout", "x"}.String())
}

func TestEachSlotHasItsOwnNextLease(t *testing.T) {
	long := strings.Repeat("l", 248)
	slots := []string{
		"lock.a", "lock.next.a", "singleton.deployment.a", LockLease(long), LockLease(long[1:]), LockLease(long[5:]), LockLease(long[6:]),
		SingletonLease(Workload{"apps", "Deployment", long + "x"}, ""), SingletonLease(Workload{"apps", "Deployment", long + "y"}, ""),
	}
	seen := map[string]bool{}
	for _, slot := range slots {
		next := NextLease(slot)
		assert.True(t, HasNextLease(slot), slot)
		assert.True(t, IsNextLease(next) && !IsNextLease(slot), next)
		assert.False(t, IsSlot(next) || HasNextLease(next), next)
		assert.True(t, isSubdomain(next), next)
		assert.LessOrEqual(t, len(next), maxName)
		assert.False(t, seen[next], next)
		seen[next] = true
	}
}
