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
)

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
