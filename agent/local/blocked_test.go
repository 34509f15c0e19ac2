// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/instant"
)

// blockable starts the local API of a pod. From the call of block until the call of unblock, the
// loops of that API stand still, as they do while no processor runs them.
func blockable(t *testing.T, s *server) (p *pod, block func() (unblock func())) {
	t.Helper()
	open := make(chan struct{})
	close(open)
	var gate atomic.Value
	gate.Store(open)
	p, _ = beginWith(t, s, "blocked", "lock/a", func(c *Config) {
		clock := c.Clock
		c.Clock = func() time.Duration {
			<-gate.Load().(chan struct{})
			return clock()
		}
	})
	return p, func() func() {
		closed := make(chan struct{})
		gate.Store(closed)
		return func() {
			gate.Store(open)
			close(closed)
		}
	}
}

func TestWithdrawnBidNeverAcquiresSlotDespiteBlockedLoop(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		first := start(t, s, "first", "lock/a")
		number := first.hold("?heartbeat=5m")
		p, block := blockable(t, s)
		waits := p.stream(http.MethodPost, "/v1/lock/a/holds?wait=1h&stream=true")
		<-time.After(time.Minute)
		unblock := block()
		<-time.After(2 * instant.LongestSleep)
		waits.end()
		<-time.After(time.Minute)
		unblock()
		first.call(http.MethodDelete, "/v1/lock/a/holds/"+number)
		<-time.After(5 * time.Minute)
		synctest.Wait()
		assert.Empty(t, s.Lease("lock.a").Holder)
	})
}

func TestEndedProgramStreamStopsRenewalsDespiteBlockedLoop(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		p, block := blockable(t, s)
		number := p.hold("?heartbeat=10s")
		unblock := block()
		follows := p.stream(http.MethodGet, "/v1/lock/a/holds/"+number)
		synctest.Wait()
		follows.end()
		<-time.After(time.Second)
		unblock()
		<-time.After(time.Minute)
		before := s.count()
		<-time.After(time.Minute)
		assert.Equal(t, before, s.count(), "nobody supports the hold, so the agent does not renew")
	})
}
