// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// Each request to the API server that is under way takes a TLS connection of its own. A few hundred
// such connections exceed the memory limit of the agent's container.
func TestConcurrentReadsOfABarrierShareRequests(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, pod := atBarrier(t)
		a := pod("a")
		states := make(chan any, 300)
		read := func() {
			_, body := a.call(http.MethodGet, "/v1/barrier/warm")
			states <- body["state"]
		}
		for range 300 {
			go read()
		}
		for range 300 {
			assert.Equal(t, "closed", <-states)
		}
		assert.LessOrEqual(t, s.count(), 2, "one read for the first call, and one read for all others")
	})
}

func TestSharedReadIsNeverOlderThanItsCalls(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, pod := atBarrier(t)
		s.Answers = time.Second
		a := pod("a")
		first, second := make(chan any, 1), make(chan any, 1)
		read := func(to chan<- any) {
			_, body := a.call(http.MethodGet, "/v1/barrier/warm")
			to <- body["state"]
		}
		go read(first)
		<-time.After(time.Second / 2) // the answer to the first read is under way
		s.Edit(meets.Leases("run-1")[0], func(l *kube.Lease) { l.Annotations = map[string]string{api.OpenedAnnotation: "3"} })
		go read(second)
		assert.Equal(t, "closed", <-first)
		assert.Equal(t, "open", <-second, "the barrier opened before this call")
	})
}

func TestRepeatedReadsOfABarrierCauseFewRequests(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, pod := atBarrier(t)
		a := pod("a")
		longest := time.Duration(0)
		for began := time.Now(); time.Since(began) < time.Minute; {
			sent := time.Now()
			_, body := a.call(http.MethodGet, "/v1/barrier/warm")
			assert.Equal(t, "closed", body["state"])
			longest = max(longest, time.Since(sent))
		}
		assert.LessOrEqual(t, s.count(), 60+looksBurst, "no more than a read each second in the long run")
		assert.LessOrEqual(t, longest, looksEvery+time.Millisecond)
	})
}

// A slot for a second reader is free, but the writer has the intent.
func TestReaderLearnsAtOnceOfWaitingWriter(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newRWServer(t)
		first, writer, third := start(t, s, "first", "rwlock/c=2"), start(t, s, "writer", "rwlock/c=2"), start(t, s, "third", "rwlock/c=2")
		code, body := first.call(http.MethodPost, readPath)
		require.Equal(t, http.StatusCreated, code, body)
		writer.stream(http.MethodPost, writePath+"&wait=1h")
		after(10 * time.Second)
		began := time.Now()
		code, body = third.call(http.MethodPost, readPath)
		assert.Equal(t, http.StatusConflict, code, body)
		assert.Equal(t, "writer", body["holder"])
		assert.Less(t, time.Since(began), time.Second)
	})
}

// After its expiry, the paused Lease still names the dead holder.
func TestBidForAPausedSlotReturnsReasonPaused(t *testing.T) {
	for name, expired := range map[string]bool{"free": false, "expired": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newServer(t, "lock.a")
				if expired {
					dead := start(t, s, "dead", "lock/a")
					dead.hold("")
					dead.kill()
				}
				s.Edit("lock.a", pauseLease)
				code, body := start(t, s, "first", "lock/a").call(http.MethodPost, holdPath+"?wait=1m")
				assert.Equal(t, http.StatusConflict, code)
				assert.Equal(t, "Paused", body["reason"])
				assert.Nil(t, body["holder"])
			})
		})
	}
}

func TestPausedIntentNeverRefusesReaders(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newRWServer(t)
		s.Edit("rwlock.c.intent", pauseLease)
		p := start(t, s, "first", "rwlock/c=2")
		code, body := p.call(http.MethodPost, readPath)
		assert.Equal(t, http.StatusCreated, code, body)
	})
}

// all returns the lines so far.
func (l *lines) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Split(strings.TrimSpace(l.text.String()), "\n")
}

// A program that reads the stream can work without a break.
func TestStreamSendsALineAtEachRenewal(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, newServer(t, "lock.a"), "first", "lock/a")
		began := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
		stream := p.stream(http.MethodPost, "/v1/lock/a/holds?stream=true")
		after(time.Second)
		for range 120 {
			all := stream.all()
			var last holding
			require.NoError(t, json.Unmarshal([]byte(all[len(all)-1]), &last))
			require.Equal(t, held, last.State)
			require.Greater(t, last.GoodUntil, time.Since(began).Seconds()+budget.Deadline().Seconds()-budget.Renew.Seconds()-2)
			after(time.Second)
		}
		assert.InDelta(t, 120/budget.Renew.Seconds(), len(stream.all()), 4, "a line without news is a burden")
	})
}

// The agent sends the acquisition of the second claim before a renewal of the first claim. So the hold
// of the second claim ends first.
func TestSeveralClaimsAnswerEndsWithFirstHold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, one, two := startPair(t)
		other := one.stream(http.MethodPost, "/v1/lock/b/holds?stream=true")
		after(time.Second)
		waits := two.stream(http.MethodPost, both+"&wait=10m")
		after(time.Minute)
		for before := s.Lease("lock.a").RenewTime; s.Lease("lock.a").RenewTime.Equal(before); {
			after(10 * time.Millisecond)
		}
		after(budget.Renew - time.Second)
		one.call(http.MethodDelete, "/v1/lock/b/holds/"+numberIn(other))
		after(time.Millisecond / 2) // the release is under way, and takes a millisecond
		s.slow(2 * time.Second)
		after(time.Second / 2)
		s.slow(0)
		<-waits.done
		var answer holdings
		require.NoError(t, json.Unmarshal(waits.text.Bytes(), &answer))
		require.Len(t, answer.Holds, 2)
		require.Less(t, answer.Holds[1].GoodUntil, answer.Holds[0].GoodUntil)
		assert.InDelta(t, answer.Holds[1].GoodUntil, answer.GoodUntil, 0)
		assert.InDelta(t, answer.Holds[1].GoodForSeconds, answer.GoodForSeconds, 0)
	})
}
