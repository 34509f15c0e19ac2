// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

const both = "/v1/holds?claims=lock/b,lock/a"

// startPair starts two pods. Each pod may bid for the locks a and b.
func startPair(t *testing.T) (s *server, one, two *pod) {
	t.Helper()
	s = newServer(t, "lock.a", "lock.b")
	return s, start(t, s, "one", "lock/a,lock/b"), start(t, s, "two", "lock/a,lock/b")
}

// numberIn returns the number of the first hold in the stream.
func numberIn(l *lines) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, rest, _ := strings.Cut(l.text.String(), `"hold":"`)
	number, _, _ := strings.Cut(rest, `"`)
	return number
}

// holdsIn returns the holds in an answer about several claims.
func holdsIn(body map[string]any) (holds []map[string]any) {
	for _, h := range body["holds"].([]any) {
		holds = append(holds, h.(map[string]any))
	}
	return holds
}

func TestOneCallAcquiresSlotsOfSeveralClaims(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, one, two := startPair(t)
		code, body := one.call(http.MethodPost, both+"&heartbeat=10s")
		require.Equal(t, http.StatusCreated, code, body)
		holds := holdsIn(body)
		require.Len(t, holds, 2)
		assert.Equal(t, "lock.a", holds[0]["slot"], "the order is the same for all programs")
		assert.Equal(t, "lock.b", holds[1]["slot"])
		earliest := min(holds[0]["goodUntil"].(float64), holds[1]["goodUntil"].(float64))
		assert.InDelta(t, earliest, body["goodUntil"], 0)
		assert.Equal(t, 2, s.heldOf("one"))

		for range 5 {
			after(8 * time.Second)
			for _, h := range holds {
				code, line := one.call(http.MethodPut, "/v1/"+h["claim"].(string)+"/holds/"+h["hold"].(string))
				require.Equal(t, http.StatusOK, code, line)
			}
		}
		code, body = two.call(http.MethodPost, both)
		assert.Equal(t, http.StatusConflict, code, body)
		one.call(http.MethodDelete, "/v1/lock/a/holds/"+holds[0]["hold"].(string))
		after(time.Minute) // in this minute the program sends no heartbeat
		code, body = one.call(http.MethodPut, "/v1/lock/b/holds/"+holds[1]["hold"].(string))
		assert.Equal(t, http.StatusGone, code, body)
		code, body = two.call(http.MethodPost, both+"&wait=1m")
		require.Equal(t, http.StatusCreated, code, body)
	})
}

func TestWaitLimitCoversAllClaimsOfACall(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, one, two := startPair(t)
		a, b := one.stream(http.MethodPost, "/v1/lock/a/holds?stream=true"), one.stream(http.MethodPost, "/v1/lock/b/holds?stream=true")
		after(time.Second)
		require.Equal(t, []string{"held", "held"}, append(a.states(), b.states()...))
		began := time.Now()
		go func() {
			after(20 * time.Second)
			one.call(http.MethodDelete, "/v1/lock/a/holds/"+numberIn(a))
		}()
		code, body := two.call(http.MethodPost, both+"&wait=30s")
		assert.Equal(t, http.StatusConflict, code)
		assert.Equal(t, "one", body["holder"])
		assert.InDelta(t, 30, time.Since(began).Seconds(), 1, "the wait is that of the whole call")
	})
}

func TestLeasesOfOneDeadHolderExpireTogether(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, one, two := startPair(t)
		code, body := one.call(http.MethodPost, both+"&heartbeat=10s")
		require.Equal(t, http.StatusCreated, code, body)
		waits := two.stream(http.MethodPost, both+"&wait=10m")
		began := time.Now()
		<-waits.done // the first pod's holds end, because its program sends no heartbeats
		assert.Equal(t, http.StatusCreated, waits.code)
		assert.Less(t, time.Since(began), 10*time.Second+api.DefaultLeaseDuration+5*time.Second, "not one lease after the other")
	})
}

func TestRefusedCallForSeveralClaimsKeepsNoHold(t *testing.T) {
	for name, refuse := range map[string]func(t *testing.T, s *server, two *pod){
		"at once": func(t *testing.T, _ *server, two *pod) {
			code, body := two.call(http.MethodPost, both)
			assert.Equal(t, http.StatusConflict, code, body)
			assert.Equal(t, "Busy", body["reason"])
		},
		"after its wait": func(t *testing.T, s *server, two *pod) {
			began := time.Now()
			waits := two.stream(http.MethodPost, both+"&wait=10m")
			after(9 * time.Minute)
			assert.Equal(t, 1, s.heldOf("two"), "the open call supports the first hold")
			<-waits.done
			assert.Equal(t, http.StatusConflict, waits.code)
			assert.InDelta(t, 600, time.Since(began).Seconds(), 1)
		},
		"hung up": func(t *testing.T, s *server, two *pod) {
			waits := two.stream(http.MethodPost, both+"&wait=1h")
			after(time.Minute)
			assert.Equal(t, 1, s.heldOf("two"))
			waits.end()
		},
		"its pod stops": func(t *testing.T, _ *server, two *pod) {
			waits := two.stream(http.MethodPost, both+"&wait=1h")
			after(time.Minute)
			close(two.stop)
			<-waits.done
			assert.Equal(t, http.StatusServiceUnavailable, waits.code)
		},
		"a person asks for the first": func(t *testing.T, s *server, two *pod) {
			waits := two.stream(http.MethodPost, both+"&wait=1h")
			after(time.Minute)
			s.Edit("lock.a", func(l *kube.Lease) { l.Annotations[api.YieldAnnotation] = l.Annotations[api.HoldAnnotation] })
			<-waits.done
			assert.Equal(t, http.StatusGone, waits.code)
		},
		"the first is lost": func(t *testing.T, s *server, two *pod) {
			waits := two.stream(http.MethodPost, both+"&wait=1h")
			after(time.Minute)
			s.Edit("lock.a", func(l *kube.Lease) { l.Holder, l.Annotations = "thief", nil })
			<-waits.done
			assert.Equal(t, http.StatusGone, waits.code)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s, one, two := startPair(t)
				held := one.stream(http.MethodPost, "/v1/lock/b/holds?stream=true")
				after(time.Second)
				require.Equal(t, []string{"held"}, held.states())
				refuse(t, s, two)
				after(5 * time.Second)
				assert.Zero(t, s.heldOf("two"))
			})
		})
	}
}

func TestCallsThatSortClaimsDifferentlyNeverDeadlock(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, one, two := startPair(t)
		calls := []*lines{one.stream(http.MethodPost, both+"&wait=1h"), two.stream(http.MethodPost, "/v1/holds?claims=lock/a,lock/b&wait=1h")}
		after(5 * time.Minute) // without heartbeats, the holds of the first call end
		for _, c := range calls {
			<-c.done
			assert.Equal(t, http.StatusCreated, c.code)
		}
	})
}

func TestCallForSeveralClaimsMayIncludeAWriter(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, append(api.Claim{Kind: api.RWLock, Name: "c", Size: 2}.Slots(api.Workload{}), "lock.a")...)
		one, two := start(t, s, "one", "lock/a,rwlock/c=2"), start(t, s, "two", "lock/a,rwlock/c=2")
		code, body := one.call(http.MethodPost, "/v1/holds?claims=rwlock/c,lock/a&as=writer")
		require.Equal(t, http.StatusCreated, code, body)
		assert.Equal(t, 2+api.RWLockSlots, s.heldOf("one"))
		code, body = two.call(http.MethodPost, readPath)
		assert.Equal(t, http.StatusConflict, code, body)
	})
}

func TestMalformedCallForSeveralClaimsIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, newServer(t, "lock.a"), "pod", "lock/a,rwlock/c=2")
		for query, reason := range map[string]string{
			"":                                    "BadRequest",
			"?claims=lock/a,":                     "BadRequest",
			"?claims=lock/a,lock/a":               "BadRequest",
			"?claims=lock/a&as=reader":            "BadRequest",
			"?claims=lock/a,rwlock/c":             "BadRequest",
			"?claims=lock/a,rwlock/c&as=owner":    "BadRequest",
			"?claims=lock/a&wait=long":            "BadRequest",
			"?claims=lock/a&heartbeat=1h":         "BadRequest",
			"?claims=lock/a,lock/b":               "NotDeclared",
			"?claims=lock/a,variable/v":           "BadRequest",
			"?claims=lock/a,rwlock/c=2&as=reader": "NotDeclared",
			"?claims=a":                           "NotDeclared",
		} {
			_, body := p.call(http.MethodPost, "/v1/holds"+query)
			assert.Equal(t, reason, body["reason"], query)
		}
	})
}

// The first claim is free only after some minutes. Meanwhile the holder of the second claim dies.
func TestWaitingCallWatchesItsLaterClaims(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, one, two := startPair(t)
		dead := start(t, s, "dead", "lock/b")
		code, _ := dead.call(http.MethodPost, "/v1/lock/b/holds?heartbeat=5m")
		require.Equal(t, http.StatusCreated, code)
		number := one.hold("?heartbeat=5m")
		waits := two.stream(http.MethodPost, both+"&wait=10m")
		after(2 * time.Minute)
		dead.kill()
		after(time.Minute)
		began := time.Now()
		one.call(http.MethodDelete, "/v1/lock/a/holds/"+number)
		<-waits.done
		assert.Equal(t, http.StatusCreated, waits.code)
		assert.Less(t, time.Since(began), 2*time.Second, "the agent has seen that the second Lease expired")

		after(5 * time.Minute) // without heartbeats, the holds end
		sent := s.count()
		after(24 * time.Hour)
		assert.Equal(t, sent, s.count(), "the agent watches only while a call waits")
	})
}
