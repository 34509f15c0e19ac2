// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package wait

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
)

var (
	key7   = api.Condition{Lease: "once.schema", Key: "7"}
	serves = api.Condition{Lease: database}
)

// schema returns the Lease of a once claim. The Lease has the given done keys.
func schema(done string) kube.Lease {
	return kube.Lease{Name: "once.schema", Holder: "unknown", Annotations: map[string]string{api.DoneAnnotation: done}}
}

// Each case lists the Leases that the API server stores: the first ones before the wait, and the others
// during the wait, with a minute between. The last ones fulfill the conditions.
func TestConditionIsFulfilledDuringTheWait(t *testing.T) {
	type leases = []kube.Lease
	unserving := func(renewals int) kube.Lease { return annotated(held(renewals), api.ServingAnnotation, "") }
	for name, test := range map[string]struct {
		conditions []api.Condition
		stored     []leases
		within     time.Duration // zero means at once
	}{
		"a done key":                 {[]api.Condition{key7}, []leases{{schema("7")}}, 0},
		"a Lease that appears":       {[]api.Condition{key7}, []leases{nil, {schema("")}, {schema("7")}}, 0},
		"a serving holder's renewal": {[]api.Condition{serves}, []leases{{unserving(1)}, {unserving(2)}, {held(3)}}, 0},
		"one condition after the other": {[]api.Condition{key7, serves}, []leases{
			{schema(""), held(1)},
			{held(2)},
			{schema("7")},
			{schema(""), held(3)},
		}, 0},
		"one shard after the other": {[]api.Condition{mapped}, []leases{
			nil,
			{shard(0, "1/3/a", "a"), shard(1, "1/3/a", "")},
			{shard(1, "1/3/a", "a")},
			{shard(2, "1/3/a", "b")},
			{shard(2, "1/3/a closed", "b,a")},
		}, 0},
		"the first shard at last": {[]api.Condition{mapped}, []leases{
			{shard(0, "1/2/a", ""), shard(1, "1/2/a", "a")},
			{shard(0, "1/2/a", "a")},
		}, 0},
		"a new run, whose shards follow": {[]api.Condition{mapped}, []leases{
			{shard(0, "1/2/a", "a"), shard(1, "1/2/a", "")},
			{shard(0, "2/2/b", "a"), shard(1, "2/2/b", "a,b")},
			{shard(0, "2/2/b", "a,b")},
		}, 15 * time.Second},
		"another number of shards": {[]api.Condition{mapped}, []leases{
			{shard(0, "1/3/a", "a"), shard(1, "1/3/a", "")},
			{shard(0, "2/2/a", ""), shard(1, "2/2/a", "a")},
			{shard(0, "2/2/a", "a")},
		}, 15 * time.Second},
		// If a person deletes the Leases of the shards, or restores etcd, the epoch in their stamps is then
		// smaller than before.
		"shards that enroll creates again": {[]api.Condition{mapped}, []leases{
			{shard(0, "5/2/a", "a"), shard(1, "5/2/a", "")},
			{shard(0, "1/2/b", "b"), shard(1, "1/2/b", "b")},
		}, 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *server) {
				s.put(test.stored[0]...)
				r := start(t, s, test.conditions...)
				for _, leases := range test.stored[1:] {
					r.lasts(t, time.Minute)
					s.put(leases...)
				}
				r.ends(t, max(atOnce, test.within))
			})
		})
	}
}

func TestDoneConditionNeedsNoWatch(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		s.put(schema("7"))
		start(t, s, key7).ends(t, atOnce)
		assert.Len(t, s.Requests(), 1)
	})
	bubble(t, func(t *testing.T, s *server) {
		for n := range 32 {
			s.put(shard(n, "7/32/a", "a"))
		}
		start(t, s, api.Condition{Lease: mapped.Lease, Key: "a"}).ends(t, atOnce)
		assert.Empty(t, s.Requests("watch"))
	})
}

func TestKeyDoneBetweenReadAndWatchFulfillsCondition(t *testing.T) {
	for name, between := range map[string]struct{ before, then []kube.Lease }{
		"done": {[]kube.Lease{schema("")}, []kube.Lease{schema("7")}},
		// A watch from a later version than that of the read would miss the state in which key 7 is
		// done.
		"done, and forgotten": {[]kube.Lease{schema("")}, []kube.Lease{schema("7"), schema("8")}},
		"created":             {nil, []kube.Lease{schema("7")}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *server) {
				s.put(between.before...)
				s.Answer = once("get", func() { s.put(between.then...) })
				start(t, s, key7).ends(t, atOnce)
			})
		})
	}
}

// once returns the Answer of a server that calls f after the first request with the verb.
func once(verb string, f func()) func(apiserver.Request, error) error {
	return func(r apiserver.Request, err error) error {
		if called := f; r.Verb == verb && called != nil {
			f = nil
			called()
		}
		return err
	}
}

func TestFailedReadOfAConditionsLeaseIsRepeated(t *testing.T) {
	for name, test := range map[string]struct {
		fails  func(ctx context.Context) error
		for_   time.Duration
		within time.Duration
	}{
		"no right yet":   {status(403), 3 * time.Second, 8 * time.Second},
		"broken gateway": {status(502), 3 * time.Second, 8 * time.Second},
		"unreachable":    {func(context.Context) error { return errors.New("connection refused") }, 3 * time.Second, 8 * time.Second},
		"hanging":        {func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, time.Nanosecond, readTimeout + time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *server) {
				s.put(schema("7"))
				until := time.Now().Add(test.for_)
				s.fail("get", func(ctx context.Context) error {
					if time.Now().Before(until) {
						return test.fails(ctx)
					}
					return nil
				})
				start(t, s, key7).ends(t, test.within)
				assert.Less(t, len(s.Requests("get")), 8)
			})
		})
	}
}

func TestConditionIsReadAgainAfterASilentWatch(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		s.put(schema(""))
		s.Weather.Silent = true
		r := start(t, s, key7)
		s.put(schema("7"))
		r.ends(t, longestWatch+time.Second)
		assert.Greater(t, r.took, longestWatch/2)
		assert.Len(t, s.Requests("get"), 2)
	})
}

// The API server has restarted, so it has forgotten the version of a Lease that nobody writes. Its watch
// begins with a state from before the read.
func TestIdleConditionIsNotPolledAfterARestart(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		s.put(schema("7"), schema(""))
		r := start(t, s, key7)
		s.put(held(1))
		s.Do(func() {
			s.Behind = 1
			s.Compact()
			s.Watches.Cut()
		})
		r.lasts(t, time.Hour)
		assert.LessOrEqual(t, len(s.Requests()), 2+3*int(time.Hour/(longestWatch/2)))
		s.put(schema("7"))
		r.ends(t, atOnce)
	})
}

func TestStoppedWaitForConditionReturnsCauseOfStop(t *testing.T) {
	stop := errors.New("stopped")
	for name, prepare := range map[string]func(s *server){
		"in a watch": func(*server) {},
		"in a pause": func(s *server) {
			s.fail("get", func(context.Context) error { return &kube.StatusError{Code: 429, RetryAfter: time.Hour} })
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *server) {
				prepare(s)
				r := start(t, s, key7)
				r.lasts(t, time.Second)
				r.stop(stop)
				<-r.done
				require.ErrorIs(t, r.err, stop)
				assert.ErrorContains(t, r.err, "wait until key 7 of once.schema is done")
				assert.Equal(t, time.Second, r.took)
			})
		})
	}
}

func TestPodNeedsAnAPIClientToAwaitConditions(t *testing.T) {
	assert.Error(t, Conditions(t.Context(), Config{Conditions: []api.Condition{key7}}))
}

// An API server that lags behind may begin a watch without a version with states from before the
// read. Here somebody has deleted the Lease of a dead holder before the pod began to wait. In the second
// case another holder, which has not renewed, has a Lease with the same name just after the read.
func TestDeletedLeasesEventsNeverFulfillTheCondition(t *testing.T) {
	recreated := func(renewals int) kube.Lease {
		return changed(held(renewals), func(l *kube.Lease) { l.UID = "lease-2" })
	}
	for name, again := range map[string]bool{"deleted": false, "recreated": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *server) {
				s.put(held(1), held(2))
				s.Delete(database)
				s.Behind = 2
				if again {
					s.Behind = 3
					s.Answer = once("get", func() { s.put(recreated(1)) })
				}
				r := start(t, s, serves)
				r.lasts(t, time.Hour)
				s.Do(func() { s.Behind = 0 })
				if !again {
					s.put(recreated(3))
					r.lasts(t, 30*time.Second)
				}
				s.put(recreated(4))
				r.ends(t, atOnce)
			})
		})
	}
}

// The Lease appears during the wait, and its holder does not serve when the watch ends.
func TestEndOfAWatchNeverFulfillsTheCondition(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		r := start(t, s, serves)
		s.put(annotated(held(1), api.ServingAnnotation, ""))
		r.lasts(t, 2*longestWatch)
		assert.Greater(t, len(s.Requests("get")), 1)
	})
}
