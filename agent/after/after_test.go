// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package after

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

var (
	key7   = api.Condition{Lease: "once.schema", Key: "7"}
	serves = api.Condition{Lease: database}
)

// schema returns the Lease of a once claim. The Lease has the given done keys.
func schema(done string) kube.Lease {
	return kube.Lease{Name: "once.schema", Holder: "unknown", Annotations: map[string]string{api.DoneAnnotation: done}}
}

// bubble runs the test with simulated time.
func bubble(t *testing.T, test func(t *testing.T, s *server)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newServer()) })
}

func TestDoneKeyFulfillsTheConditionAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		s.put(schema("7"))
		r := start(t, s, key7)
		r.ends(t, atOnce)
		assert.Len(t, s.reads, 1)
		assert.Empty(t, s.watches)
	})
}

func TestKeyDoneBetweenReadAndWatchFulfillsCondition(t *testing.T) {
	for name, between := range map[string]func(s *server){
		"done": func(s *server) { s.put(schema("7")) },
		// A watch from a later version than that of the read would miss the state in which key 7 is
		// done.
		"done, and forgotten": func(s *server) {
			s.put(schema("7"))
			s.put(schema("8"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *server) {
				s.put(schema(""))
				s.afterRead = func() { between(s) }
				start(t, s, key7).ends(t, atOnce)
				require.Len(t, s.watches, 1)
				assert.Equal(t, "1", s.watches[0].version, "the version of the read")
			})
		})
	}
}

func TestLeaseCreatedDuringWaitCanFulfillTheCondition(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		r := start(t, s, key7)
		r.lasts(t, 5*time.Minute)
		s.put(schema(""))
		r.lasts(t, time.Minute)
		s.put(schema("7"))
		r.ends(t, atOnce)
		assert.Len(t, s.reads, 1, "the rest comes by the watch")
	})
	bubble(t, func(t *testing.T, s *server) {
		s.afterRead = func() { s.put(schema("7")) }
		start(t, s, key7).ends(t, atOnce)
	})
}

func TestPodWaitsForOneConditionAfterTheOther(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		s.put(schema(""))
		s.put(held(1))
		r := start(t, s, key7, serves)
		r.lasts(t, time.Minute)
		s.put(held(2))
		r.lasts(t, time.Minute)
		s.put(schema("7"))
		r.lasts(t, time.Minute)
		s.put(schema("")) // a condition that was met once is not judged again
		s.put(held(3))
		r.ends(t, atOnce)
		for i, lease := range []string{"once.schema", database} {
			assert.Equal(t, lease, s.reads[i].lease)
			assert.Equal(t, lease, s.watches[i].lease)
		}
		assert.Len(t, s.reads, 2)
	})
}

func TestRenewalByServingHolderFulfillsTheCondition(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		s.put(annotated(held(1), api.ServingAnnotation, ""))
		r := start(t, s, serves)
		r.lasts(t, time.Minute)
		s.put(annotated(held(2), api.ServingAnnotation, ""))
		r.lasts(t, time.Minute)
		s.put(held(3))
		r.ends(t, atOnce)
	})
}

func TestDeadHolderNeverFulfillsTheCondition(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		s.put(held(1))
		r := start(t, s, serves)
		for range 24 {
			r.lasts(t, time.Hour)
			s.put(annotated(held(1), api.PausedAnnotation, "hold"))
			s.put(held(1))
		}
		r.lasts(t, time.Hour)
		r.ended()
		assert.LessOrEqual(t, len(s.reads), 25*5+1)
	})
}

// A client damages the renew time of a Lease, and then writes the old renew time back. Neither
// write is a renewal.
func TestDamagedRenewTimeNeverFulfillsTheCondition(t *testing.T) {
	damaged := func() kube.Lease {
		return changed(held(1), func(l *kube.Lease) { l.ResourceVersion, l.RenewTime = "damaged", time.Time{} })
	}
	restored := changed(held(1), func(l *kube.Lease) { l.ResourceVersion = "restored" })
	for name, first := range map[string]kube.Lease{"damaged during the wait": held(1), "damaged before the wait": damaged()} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *server) {
				s.put(first)
				r := start(t, s, serves)
				r.lasts(t, time.Minute)
				s.put(damaged())
				r.lasts(t, time.Minute)
				s.put(restored)
				r.lasts(t, time.Minute)
				s.put(held(2))
				r.ends(t, atOnce)
			})
		})
	}
}

// The holder is dead. A restore of etcd brings an earlier state of the holder's Lease back.
func TestRestoredStateNeverFulfillsTheCondition(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		s.put(held(3))
		r := start(t, s, serves)
		r.lasts(t, time.Minute)
		s.put(held(2))
		r.lasts(t, time.Hour)
		s.put(held(4))
		r.ends(t, atOnce)
	})
}

func TestRecreatedLeaseFulfillsConditionOnlyByARenewal(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		s.put(held(1))
		r := start(t, s, serves)
		s.remove(database)
		s.put(held(2))
		r.lasts(t, time.Minute)
		s.put(held(3))
		r.ends(t, atOnce)
	})
}

func TestRefusedReadOfAConditionsLeaseIsRepeated(t *testing.T) {
	for name, err := range map[string]error{
		"no right yet":   &kube.StatusError{Code: 403},
		"unreachable":    errors.New("connection refused"),
		"broken gateway": &kube.StatusError{Code: 502},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *server) {
				s.put(schema("7"))
				granted := time.Now().Add(3 * time.Second)
				s.refuseRead = func(context.Context) error {
					if time.Now().Before(granted) {
						return err
					}
					return nil
				}
				r := start(t, s, key7)
				r.ends(t, 8*time.Second)
				assert.Less(t, len(s.reads), 8)
			})
		})
	}
}

func TestHangingReadOfAConditionsLeaseIsRepeated(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		s.put(schema("7"))
		s.refuseRead = func(ctx context.Context) error {
			if len(s.reads) > 1 {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}
		start(t, s, key7).ends(t, readTimeout+time.Second)
	})
}

// busiest returns the largest number of requests within one minute.
func (s *server) busiest() int {
	most := 0
	reads, watches := s.requests()
	all := slices.Concat(reads, watches)
	for _, first := range all {
		n := 0
		for _, r := range all {
			if after := r.at.Sub(first.at); after >= 0 && after < time.Minute {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

func TestFailingWatchesCauseFewRequests(t *testing.T) {
	for name, fail := range map[string]func(s *server){
		"refused": func(s *server) {
			s.refuseWatch = func(context.Context) error { return &kube.StatusError{Code: 403} }
		},
		"too old at once":  func(s *server) { s.compacted = 1 },
		"ended after 1 ms": func(s *server) { s.endAfter = time.Millisecond },
		"ended after 2 s":  func(s *server) { s.endAfter = 2 * time.Second },
		"refused after 20 s": func(s *server) {
			s.refuseWatch = func(ctx context.Context) error {
				select {
				case <-time.After(20 * time.Second):
				case <-ctx.Done():
				}
				return &kube.StatusError{Code: 503}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *server) {
				s.put(schema(""))
				fail(s)
				r := start(t, s, key7)
				r.lasts(t, time.Minute)
				s.change(func() { s.reads, s.watches = nil, nil })
				r.lasts(t, time.Hour)
				// By now 10 s to 15 s pass between two looks. Each look sends a read and a watch,
				// so a minute has at most 12 requests.
				assert.LessOrEqual(t, s.busiest(), 12)
				reads, watches := s.requests()
				assert.LessOrEqual(t, len(reads)+len(watches), 10*60)
				assert.GreaterOrEqual(t, len(reads), 60)
				s.put(schema("7"))
				r.ends(t, 20*time.Second+longestPause*3/2)
			})
		})
	}
}

func TestLongWatchOfAConditionIsRepeatedImmediately(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		s.put(schema(""))
		s.refuseWatch = func(context.Context) error { return &kube.StatusError{Code: 403} }
		r := start(t, s, key7)
		r.lasts(t, time.Minute)
		s.change(func() { s.refuseWatch, s.endAfter = nil, 20*time.Second })
		r.lasts(t, 80*time.Second)
		before, _ := s.requests()
		r.lasts(t, 10*time.Minute)
		r.ended()
		assert.Greater(t, len(s.reads)-len(before), 25, "each watch is followed by another one at once")
	})
}

func TestConditionIsReadAgainAfterASilentWatch(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		s.put(schema(""))
		s.silent = true
		r := start(t, s, key7)
		s.put(schema("7"))
		r.ends(t, watchMin+watchSpread+time.Second)
		assert.Greater(t, r.took, watchMin)
		assert.Len(t, s.reads, 2)
	})
}

func TestPodObeysRetryAfterHeaderWhileAwaitingConditions(t *testing.T) {
	for asked, want := range map[time.Duration]time.Duration{20 * time.Second: 20 * time.Second, time.Hour: time.Minute} {
		bubble(t, func(t *testing.T, s *server) {
			s.put(schema("7"))
			s.refuseRead = func(context.Context) error {
				if len(s.reads) > 1 {
					return nil
				}
				return &kube.StatusError{Code: 429, RetryAfter: asked}
			}
			r := start(t, s, key7)
			r.ends(t, 2*want)
			assert.GreaterOrEqual(t, r.took, want)
		})
	}
}

func TestStoppedWaitForConditionReturnsCauseOfStop(t *testing.T) {
	stop := errors.New("stopped")
	for name, prepare := range map[string]func(s *server){
		"in a watch": func(*server) {},
		"in a pause": func(s *server) {
			s.refuseRead = func(context.Context) error { return &kube.StatusError{Code: 429, RetryAfter: time.Hour} }
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
	assert.Error(t, Run(t.Context(), Config{Conditions: []api.Condition{key7}}))
}

// An API server that lags behind may begin a watch without a version with states from before the
// read. Here somebody has deleted the Lease of a dead holder before the pod began to wait.
func TestDeletedLeasesEventsNeverFulfillTheCondition(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		s.replayed = []kube.Lease{held(1), held(2)}
		r := start(t, s, serves)
		r.lasts(t, time.Hour)
		s.change(func() { s.replayed = nil })
		s.put(changed(held(3), func(l *kube.Lease) { l.UID = "lease-2" }))
		r.lasts(t, 30*time.Second)
		s.put(changed(held(4), func(l *kube.Lease) { l.UID = "lease-2" }))
		r.ends(t, atOnce)
	})
}

// The Lease of the first states does not exist any more. A Lease with the same name has another holder,
// and that holder has not renewed the Lease.
func TestRecreatedLeaseNeverConfirmsEarlierLeasesHolder(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		recreated := func(renewals int) kube.Lease {
			return changed(held(renewals), func(l *kube.Lease) { l.UID = "lease-2" })
		}
		s.replayed = []kube.Lease{held(1), held(2)}
		s.afterRead = func() { s.put(recreated(1)) }
		r := start(t, s, serves)
		r.lasts(t, time.Hour)
		s.put(recreated(2))
		r.ends(t, atOnce)
	})
}

// The Lease appears during the wait, and its holder does not serve when the watch ends.
func TestEndOfAWatchNeverFulfillsTheCondition(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		r := start(t, s, serves)
		s.put(annotated(held(1), api.ServingAnnotation, ""))
		r.lasts(t, 2*(watchMin+watchSpread))
		reads, _ := s.requests()
		assert.Greater(t, len(reads), 1)
	})
}
