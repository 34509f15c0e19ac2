// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package wait

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
)

func TestShortWaitForAConditionWritesNoEvent(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		s.put(schema(""))
		r := start(t, s, key7)
		r.lasts(t, 9*time.Second)
		s.put(schema("7"))
		r.ends(t, atOnce)
		assert.Empty(t, s.events())
		assert.Empty(t, s.log.String())
	})
}

func TestEachConditionCausesOneEventAndOneWarning(t *testing.T) {
	for name, test := range map[string]struct {
		condition   api.Condition
		waits, warn string
		prepare     func(s *server)
		meet        []kube.Lease
	}{
		"a key": {
			key7, "The pod waits until key 7 of once.schema is done.",
			"The pod still waits until key 7 of once.schema is done. Key 7 is not done, and no pod holds the Lease. " +
				"Check that a pod claims it with this key. See: kubectl metaparticle explain",
			func(s *server) { s.put(schema("")) }, []kube.Lease{schema("7")},
		},
		"a holder": {
			serves, "The pod waits until the holder of singleton.deployment.db serves.",
			"The pod still waits until the holder of singleton.deployment.db serves. " +
				`The holder "db-0" has not renewed the Lease since the wait began. A holder renews in each sixth of its lease duration. ` +
				"Check that its pod lives. See: kubectl metaparticle explain",
			func(s *server) { s.put(held(1)) }, []kube.Lease{held(2)},
		},
		"no Lease": {
			serves, "The pod waits until the holder of singleton.deployment.db serves.",
			"The pod still waits until the holder of singleton.deployment.db serves. The Lease does not exist. " +
				"Check its name, and that a pod claims it. See: kubectl metaparticle explain",
			func(*server) {}, []kube.Lease{held(1), held(2)},
		},
		"a version that is gone": {
			key7, "The pod waits until key 7 of once.schema is done.",
			"The pod still waits until key 7 of once.schema is done. " +
				`Key 7 is not done. Check the pod "db-0", which holds the Lease. See: kubectl metaparticle explain`,
			func(s *server) {
				s.put(changed(schema(""), func(l *kube.Lease) { l.Holder = "db-0_u-7" }), held(1))
				s.Do(s.Compact)
			}, []kube.Lease{schema("7")},
		},
		"no right": {
			key7, "The pod waits until key 7 of once.schema is done.",
			"The pod still waits until key 7 of once.schema is done. The pod has no right to read the Lease. " +
				"Check the log of Metaparticle's webhook, which grants the right (403). See: kubectl metaparticle explain",
			func(s *server) {
				s.put(schema(""))
				s.fail("watch", status(403))
			}, []kube.Lease{schema("7")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *server) {
				test.prepare(s)
				r := start(t, s, test.condition)
				r.lasts(t, 9*time.Second)
				assert.Empty(t, s.events())
				r.lasts(t, time.Second)
				assert.Len(t, s.events(), 1)
				r.lasts(t, 289*time.Second)
				assert.Len(t, s.events(), 1)
				r.lasts(t, time.Hour-299*time.Second)
				for _, l := range test.meet {
					s.put(l)
				}
				r.ends(t, 15*time.Second)
				require.Len(t, s.events(), 2)
				assert.Equal(t, kube.Event{
					PodName: "web-0", PodUID: "u-1", Type: kube.Normal, Reason: "WaitsForCondition",
					Message: test.waits, Time: r.began.Add(10 * time.Second),
				}, s.events()[0])
				assert.Equal(t, kube.Event{
					PodName: "web-0", PodUID: "u-1", Type: kube.Warning, Reason: "ConditionNotMet",
					Message: test.warn, Time: r.began.Add(5 * time.Minute),
				}, s.events()[1])
				assert.Equal(t, "metaparticle: "+test.waits+"\nmetaparticle: "+test.warn+"\n"+
					"metaparticle: The pod has waited "+r.took.Round(time.Second).String()+" until "+goal(test.condition)+".\n", s.log.String())
			})
		})
	}
}

func TestConditionWarningNamesTheUnreachableAPIServer(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		s.fail("get", func(context.Context) error { return apiserver.ErrUnreachable })
		r := start(t, s, key7)
		r.lasts(t, 6*time.Minute)
		assert.Contains(t, s.events()[1].Message, "Check the API server (connection refused).")
	})
}

func TestEventDelayBeginsAnewForEachCondition(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		s.put(schema(""))
		r := start(t, s, key7, serves)
		r.lasts(t, 20*time.Second)
		s.put(schema("7"))
		r.lasts(t, 9*time.Second)
		assert.Len(t, s.events(), 1)
		r.lasts(t, 2*time.Second)
		require.Len(t, s.events(), 2)
		assert.Equal(t, "The pod waits until the holder of singleton.deployment.db serves.", s.events()[1].Message)
	})
}

func TestFailingEventWriteNeverDelaysWaitForCondition(t *testing.T) {
	for name, refuse := range map[string]func(context.Context) error{
		"refused": status(403),
		"hanging": func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *server) {
				s.put(schema(""))
				s.fail("event", refuse)
				r := start(t, s, key7)
				r.lasts(t, time.Hour)
				var warnings []kube.Event
				for _, e := range s.events() {
					if e.Type == kube.Warning {
						warnings = append(warnings, e)
					}
				}
				assert.Less(t, len(s.events()), 25, "the pauses grow")
				assert.Equal(t, r.began.Add(5*time.Minute), warnings[0].Time, "late Events delay no other one")
				s.put(schema("7"))
				r.ends(t, atOnce)
			})
		})
	}
}

// Without its Role, a pod can neither read the Lease nor write an Event.
func TestConditionWarningIsStoredAfterPodsRoleAppears(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		s.put(schema(""))
		refused := status(403)
		s.fail("event", refused)
		s.fail("get", refused)
		r := start(t, s, key7)
		r.lasts(t, 6*time.Minute)
		sent := len(s.events())
		s.fail("event", nil)
		s.fail("get", nil)
		r.lasts(t, 6*time.Minute)
		require.Len(t, s.events(), sent+1, "once, and stored")
		assert.Contains(t, s.events()[sent].Message, "Key 7 is not done", "the present cause")
	})
}

func TestWarningExplainsThatOldDoneKeysAreDropped(t *testing.T) {
	var done api.Done
	for n := range api.MaxDone {
		done = done.With(fmt.Sprint("n", n))
	}
	assert.Contains(t, (&judge{condition: key7}).see(new(schema(string(done)))), "not among the last 50 done keys")
}
