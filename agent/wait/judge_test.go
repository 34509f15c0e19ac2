// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package wait

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

const database = "singleton.deployment.db"

// noon is the time of the holder's acquisition. The fraction of a second tests that
// [api.ServesInHold] ignores the fraction.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 700_000_000, time.UTC)

// held returns a Lease with a serving holder. The holder has renewed the Lease the given number of
// times.
func held(renewals int) kube.Lease {
	return kube.Lease{
		Name: database, UID: "lease-1", ResourceVersion: "v" + strconv.Itoa(renewals), Holder: "db-0_u-7", DurationSeconds: 30,
		AcquireTime: noon, RenewTime: noon.Add(time.Duration(renewals) * 10 * time.Second),
		Annotations: map[string]string{
			api.HoldAnnotation: "h1", api.ServingAnnotation: noon.Add(time.Second).Format(time.RFC3339Nano),
		},
	}
}

// changed returns a copy of the Lease to which the change has been applied.
func changed(l kube.Lease, change func(*kube.Lease)) kube.Lease {
	l = *l.Clone()
	change(&l)
	return l
}

// annotated returns a copy of the Lease with the given value of the annotation. If the value is
// empty, the copy lacks the annotation.
func annotated(l kube.Lease, key, value string) kube.Lease {
	return changed(l, func(l *kube.Lease) {
		l.Annotations[key] = value
		if value == "" {
			delete(l.Annotations, key)
		}
	})
}

// Each case lists the states in the order in which a wait sees them. The test compares the result
// of the last state.
func TestHolderFulfillsTheConditionByARenewal(t *testing.T) {
	again := func(l kube.Lease) kube.Lease { return changed(l, func(l *kube.Lease) { l.ResourceVersion += "'" }) }
	since := func(l kube.Lease, text string) kube.Lease { return annotated(l, api.ServingAnnotation, text) }
	other := func(l kube.Lease) kube.Lease {
		l = annotated(l, api.HoldAnnotation, "h2")
		l.AcquireTime, l.Holder = l.RenewTime, "db-1_u-8"
		return l
	}
	gone := kube.Lease{}
	damaged := changed(held(1), func(l *kube.Lease) { l.ResourceVersion, l.RenewTime = "damaged", time.Time{} })
	for name, test := range map[string]struct {
		states []kube.Lease
		want   string
	}{
		"a renewal":                           {[]kube.Lease{held(1), held(2)}, ""},
		"the first state alone":               {[]kube.Lease{held(1)}, "has not renewed"},
		"the same state twice":                {[]kube.Lease{held(1), held(1)}, "has not renewed"},
		"another version, the same renewal":   {[]kube.Lease{held(1), again(held(1))}, "has not renewed"},
		"a renewal, then an annotation":       {[]kube.Lease{held(1), since(held(2), ""), again(held(2))}, ""},
		"serves at last":                      {[]kube.Lease{since(held(1), ""), held(2)}, ""},
		"serves no more":                      {[]kube.Lease{held(1), since(held(2), "")}, "does not serve"},
		"no instant":                          {[]kube.Lease{held(1), since(held(2), "true")}, "does not serve"},
		"serves since the second it acquired": {[]kube.Lease{held(1), since(held(2), "2026-03-01T12:00:00Z")}, ""},
		"served before it acquired":           {[]kube.Lease{held(1), since(held(2), "2026-03-01T11:59:59Z")}, "does not serve"},
		"served in another zone, before":      {[]kube.Lease{held(1), since(held(2), "2026-03-01T12:59:59+01:00")}, "does not serve"},
		"no acquisition": {[]kube.Lease{
			changed(held(1), func(l *kube.Lease) { l.AcquireTime = time.Time{} }),
			changed(held(2), func(l *kube.Lease) { l.AcquireTime = time.Time{} }),
		}, "does not serve"},
		"a new hold":                       {[]kube.Lease{held(1), other(since(held(4), "2026-03-01T12:00:41Z"))}, "has not renewed"},
		"a new hold, old serving":          {[]kube.Lease{held(1), other(held(4)), other(held(4))}, "does not serve"},
		"another number of the hold alone": {[]kube.Lease{held(1), annotated(held(2), api.HoldAnnotation, "h2")}, "has not renewed"},
		"another acquisition of the hold": {[]kube.Lease{
			held(1), changed(held(2), func(l *kube.Lease) { l.AcquireTime = noon.Add(time.Second) }),
		}, "has not renewed"},
		"a renewal in another Lease":      {[]kube.Lease{held(1), changed(held(2), func(l *kube.Lease) { l.UID = "lease-2" })}, "has not renewed"},
		"the Lease is gone":               {[]kube.Lease{held(1), held(2), gone}, "does not exist"},
		"an earlier renewal":              {[]kube.Lease{held(2), held(1)}, "has not renewed"},
		"a damaged time that is repaired": {[]kube.Lease{held(1), damaged, again(held(1))}, "has not renewed"},
		"a damaged time at first":         {[]kube.Lease{damaged, again(held(1))}, "has not renewed"},
		"a renewal after an earlier":      {[]kube.Lease{held(3), held(1), held(2)}, ""},
		"gone and back":                   {[]kube.Lease{held(1), gone, held(2)}, "has not renewed"},
		"released between":                {[]kube.Lease{held(1), changed(held(2), func(l *kube.Lease) { l.Holder = "" }), held(3)}, "has not renewed"},
		"released":                        {[]kube.Lease{held(1), changed(held(2), func(l *kube.Lease) { l.Holder = "" })}, "No pod holds"},
		"made by enroll": {[]kube.Lease{
			changed(held(1), func(l *kube.Lease) { l.Holder = "unknown" }), changed(held(2), func(l *kube.Lease) { l.Holder = "unknown" }),
		}, "No pod holds"},
		"a foreign elector": {[]kube.Lease{
			annotated(held(1), api.HoldAnnotation, ""), annotated(held(2), api.HoldAnnotation, ""), annotated(held(3), api.HoldAnnotation, ""),
		}, "no gated pod"},
		"a foreign elector after a hold": {[]kube.Lease{
			held(1), changed(held(4), func(l *kube.Lease) { l.Holder, l.AcquireTime = "host_9", l.RenewTime }),
			changed(held(5), func(l *kube.Lease) { l.Holder, l.AcquireTime = "host_9", held(4).RenewTime }),
		}, "does not serve"},
	} {
		t.Run(name, func(t *testing.T) {
			j := judge{condition: api.Condition{Lease: database}}
			for i, l := range test.states {
				seen := &l
				if l.Name == "" {
					seen = nil
				}
				got := j.see(seen)
				if i+1 < len(test.states) {
					continue
				}
				if test.want == "" {
					assert.Empty(t, got)
				}
				assert.Contains(t, got, test.want)
				assert.Equal(t, test.want == "", got == "")
			}
		})
	}
}

func TestOnlyTheExactDoneKeyFulfillsTheCondition(t *testing.T) {
	for name, test := range map[string]struct{ done, holder, want string }{
		"done":                {"6,7,8", "", ""},
		"done, and held":      {"7", "db-0_u", ""},
		"no annotation":       {"", "", "no pod holds the Lease"},
		"made by enroll":      {"", "unknown", "no pod holds the Lease"},
		"other keys":          {"6,77", "db-0_u", `Check the pod "db-0"`},
		"a part of other key": {"17", "a\nb_u", `Check the pod "a\nb"`},
	} {
		j := judge{condition: api.Condition{Lease: "once.schema", Key: "7"}}
		got := j.see(&kube.Lease{Holder: test.holder, Annotations: map[string]string{api.DoneAnnotation: test.done}})
		assert.Contains(t, got, test.want, name)
		assert.Equal(t, test.want == "", got == "", name)
	}
	j := judge{condition: api.Condition{Lease: "once.schema", Key: "7"}}
	assert.Equal(t, noLease, j.see(nil))
}

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

// A Lease can be missing for ever, and many pods may wait for it.
func TestMissingLeaseOfAShardCostsFewRequests(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		const count = 64
		for n := range count - 1 {
			s.put(shard(n, "1/64/a", "a"))
		}
		r := start(t, s, mapped)
		r.lasts(t, time.Minute)
		before := len(s.Requests())
		r.lasts(t, time.Hour)
		assert.LessOrEqual(t, len(s.Requests())-before, 2*360, "a read of shard 0 and one of the missing Lease in 10 s")
		s.put(shard(count-1, "1/64/a", "a"))
		r.ends(t, 15*time.Second)
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
