// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package after

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

var mapped = api.Condition{Lease: "shards.job.map"}

// shard returns the Lease of a shard with the stamp and the done keys.
func shard(n int, stamp, done string) kube.Lease {
	return kube.Lease{Name: api.ShardLease(mapped.Lease, n), Annotations: map[string]string{api.StampAnnotation: stamp, api.DoneAnnotation: done}}
}

func TestConditionRequiresAllShardsDoneInOneRun(t *testing.T) {
	for name, test := range map[string]struct {
		run    string
		shards []kube.Lease
	}{
		"an earlier run":          {"b", []kube.Lease{shard(0, "1/2/a", "a"), shard(1, "1/2/a", "a")}},
		"a run that is decided":   {"", []kube.Lease{shard(0, "2/2/b closed", "a"), shard(1, "1/2/a", "a")}},
		"one shard is behind":     {"", []kube.Lease{shard(0, "2/2/b", "a,b"), shard(1, "1/2/a", "a,b")}},
		"one shard is ahead":      {"", []kube.Lease{shard(0, "1/2/a", "a"), shard(1, "2/2/b", "a,b")}},
		"a larger number":         {"", []kube.Lease{shard(0, "2/3/a", "a"), shard(1, "2/3/a", "a")}},
		"a stamp without a run":   {"", []kube.Lease{shard(0, "1/2", "a"), shard(1, "1/2", "a")}},
		"no stamp":                {"", []kube.Lease{shard(0, "", "a"), shard(1, "", "a")}},
		"the run of another Job":  {"b", []kube.Lease{shard(0, "1/2/a", "a,b"), shard(1, "1/2/a", "a,b")}},
		"one shard has no Lease":  {"", []kube.Lease{shard(0, "1/2/a", "a")}},
		"one shard is not done":   {"", []kube.Lease{shard(0, "1/2/a", "a"), shard(1, "1/2/a", "b")}},
		"the first is not done":   {"", []kube.Lease{shard(0, "1/2/a", ""), shard(1, "1/2/a", "a")}},
		"the first has no Lease":  {"", []kube.Lease{shard(1, "1/2/a", "a")}},
		"another number of a run": {"", []kube.Lease{shard(0, "1/2/a", "a"), shard(1, "1/3/a", "a")}},
		"an earlier number":       {"", []kube.Lease{shard(0, "2/3/a", "a"), shard(1, "1/2/a", "a"), shard(2, "2/3/a", "")}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *server) {
				s.put(test.shards...)
				r := start(t, s, api.Condition{Lease: mapped.Lease, Key: test.run})
				r.lasts(t, 20*time.Minute)
				assert.Less(t, len(s.Requests("get")), 400, "the reads are spread")
			})
		})
	}
}

// The server sends two states of shard 0 together. The second state is no state of shard 1.
func TestStatesCountOnlyForTheirOwnShard(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		s.put(shard(0, "1/2/a", ""), shard(1, "1/2/a", ""))
		r := start(t, s, mapped)
		done := shard(0, "1/2/a", "a")
		s.Set(&done, &done)
		r.lasts(t, time.Hour)
		s.put(shard(1, "1/2/a", "a"))
		r.ends(t, atOnce)
	})
}

// Enroll deletes the Lease of a shard that no pod claims, and a later run has fewer shards.
func TestConditionLeavesAShardWhoseLeaseIsSwept(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		s.put(shard(0, "1/3/a", "a"), shard(1, "1/3/a", "a"), shard(2, "1/3/a", ""))
		r := start(t, s, mapped)
		r.lasts(t, time.Minute)
		s.Delete(api.ShardLease(mapped.Lease, 2))
		s.put(shard(0, "2/2/b", "a,b"), shard(1, "2/2/b", "a,b"))
		r.ends(t, time.Minute)
	})
}

func TestConditionWarningNamesAnUnfinishedShard(t *testing.T) {
	for holder, want := range map[string]string{
		"":        "Shard 1 of 2 is not done, and no pod holds it. Check the pods of the Job with the UID a. If that Job is complete",
		"map-1_2": `Shard 1 of 2 is not done. Check the pod "map-1", which holds the Lease.`,
	} {
		bubble(t, func(t *testing.T, s *server) {
			s.put(shard(0, "1/2/a", "a"), changed(shard(1, "1/2/a", "b"), func(l *kube.Lease) { l.Holder = holder }))
			start(t, s, mapped).lasts(t, 6*time.Minute)
			sent := s.events()
			last := sent[len(sent)-1]
			assert.Equal(t, kube.Warning, last.Type)
			assert.Contains(t, last.Message, want)
		})
	}
}
