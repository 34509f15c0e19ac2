// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package step

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/api"
)

func TestShardCountFollowsTheTemplateOfRunningPods(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	for name, test := range map[string]struct {
		template, current, want int
		pods                    []ShardedPod
	}{
		"no pod yet":                     {3, 0, 3, nil},
		"no pod any more":                {3, 5, 3, nil},
		"the template's pod runs":        {5, 3, 5, []ShardedPod{{Count: 3, Created: at(1), Runs: true}, {Count: 5, Created: at(2), Runs: true}}},
		"the template's pod is to come":  {5, 3, 3, []ShardedPod{{Count: 3, Created: at(1), Runs: true}}},
		"the template's pod is broken":   {5, 3, 3, []ShardedPod{{Count: 3, Created: at(1), Runs: true}, {Count: 5, Created: at(2), Runs: false}}},
		"an undo":                        {3, 5, 3, []ShardedPod{{Count: 3, Created: at(1), Runs: true}, {Count: 5, Created: at(2), Runs: true}}},
		"pods of a third number":         {5, 0, 4, []ShardedPod{{Count: 4, Created: at(1), Runs: true}, {Count: 5, Created: at(2), Runs: false}}},
		"no template, the youngest":      {0, 3, 5, []ShardedPod{{Count: 3, Created: at(1), Runs: true}, {Count: 5, Created: at(2), Runs: true}}},
		"no template, the youngest runs": {0, 3, 3, []ShardedPod{{Count: 3, Created: at(1), Runs: true}, {Count: 5, Created: at(2), Runs: false}}},
		"no template, of one age":        {0, 3, 5, []ShardedPod{{Count: 5, Created: at(1), Runs: true}, {Count: 3, Created: at(1), Runs: true}}},
		"no template, nobody runs":       {0, 0, 5, []ShardedPod{{Count: 3, Created: at(1), Runs: false}, {Count: 5, Created: at(2), Runs: false}}},
	} {
		s := Sharded{Template: test.template, Pods: test.pods}
		count, run := s.Number(api.Stamp{Count: test.current})
		assert.Equal(t, test.want, count, name)
		assert.Empty(t, run, name)
	}
}

func TestNewRunWaitsForDeletionOfCurrentPods(t *testing.T) {
	pod := func(run string, age int, stays bool) ShardedPod {
		return ShardedPod{Count: 3, Run: run, Stays: stays, Created: time.Unix(int64(-age), 0)}
	}
	for name, test := range map[string]struct {
		current, want string
		pods          []ShardedPod
	}{
		"the first run":             {"", "a", []ShardedPod{pod("a", 1, true)}},
		"a younger run waits":       {"a", "a", []ShardedPod{pod("a", 2, true), pod("b", 1, true)}},
		"a deleted pod is no vote":  {"a", "b", []ShardedPod{pod("a", 2, false), pod("b", 3, true)}},
		"the youngest run is next":  {"x", "b", []ShardedPod{pod("a", 2, true), pod("b", 1, true)}},
		"all pods are deleted":      {"x", "x", []ShardedPod{pod("a", 2, false)}},
		"no run, and a deleted pod": {"", "a", []ShardedPod{pod("a", 2, false)}},
		"an orphaned pod":           {"a", "a", []ShardedPod{{Count: 3, Orphaned: true, Runs: true}}},
		// Kubernetes lets a person change the template of a suspended Job. Shard 0 of 2 is other work
		// than shard 0 of 3.
		"another number in the run": {"a", "a", []ShardedPod{{Count: 2, Run: "a", Stays: true, Runs: true}}},
	} {
		s := Sharded{Pods: test.pods}
		count, run := s.Number(api.Stamp{Count: 3, Run: test.current})
		assert.Equal(t, test.want, run, name)
		assert.Equal(t, 3, count, name)
	}
}

func TestShardReleaseWakesEnrollOnlyUnderClosedStamp(t *testing.T) {
	lease := func(stamp, holder string) *Lease {
		return &Lease{Holder: holder, Annotations: map[string]string{api.StampAnnotation: stamp}}
	}
	assert.True(t, SameStamp(lease("1/3", "a"), lease("1/3", "")), "an open Lease changes hands without enroll")
	assert.True(t, SameStamp(lease("1/3 closed", "a"), lease("1/3 closed", "a")), "a renewal")
	assert.False(t, SameStamp(lease("1/3 closed", "a"), lease("1/3 closed", "")))
	assert.False(t, SameStamp(lease("1/3", ""), lease("1/3 closed", "")))
	assert.False(t, SameStamp(lease("1/3", ""), lease("", "")), "somebody has removed the stamp")
}

func TestClosedLeaseExpiresAfterItsLongestDuration(t *testing.T) {
	start, slot := time.Unix(0, 0), api.ShardLease("deployment.web", 1)
	for name, test := range map[string]struct {
		duration, want time.Duration
	}{
		"shorter than the Role's": {30 * time.Second, time.Minute},
		"longer than the Role's":  {2 * time.Minute, 2 * time.Minute},
		"huge":                    {1 << 31 * time.Second, api.MaxLeaseDuration},
	} {
		lease := &Lease{Name: slot, Holder: "a", Duration: test.duration, Annotations: map[string]string{api.StampAnnotation: "2/3 closed"}}
		f := one(nil, slot)
		shut := Observe(nil, Shut(map[string]*Lease{slot: lease}), start)
		expired, left := f.Expired(shut, lease, start.Add(test.want-time.Second))
		assert.False(t, expired, name)
		assert.Equal(t, time.Second, left, name)
		expired, left = f.Expired(shut, lease, start.Add(test.want))
		assert.True(t, expired, name)
		assert.Zero(t, left, name)
		expired, left = f.Expired(nil, lease, start.Add(test.want))
		assert.False(t, expired, "never seen")
		assert.Zero(t, left, "never seen")
	}
}
