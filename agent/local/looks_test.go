// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

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
