// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/claim"
	"github.com/metaparticle-io/metaparticle/agent/instant"
	"github.com/metaparticle-io/metaparticle/agent/kube"
)

// BenchmarkStandbyPass measures the decisions of a standby after one event, by the number of slots
// that its claim has. Every other pod of the claim holds a slot.
func BenchmarkStandbyPass(b *testing.B) {
	for _, slots := range []int{1, 8, 64} {
		b.Run(strconv.Itoa(slots)+" slots", func(b *testing.B) { standbyPasses(b, slots) })
	}
}

// Every allocation costs a collection of garbage sooner, and all standbys of a claim decide at once.
func TestStandbyOfManySlotsAllocatesLittlePerEvent(t *testing.T) {
	r := testing.Benchmark(func(b *testing.B) { standbyPasses(b, 64) })
	require.Positive(t, r.N)
	assert.Less(t, r.AllocedBytesPerOp(), int64(64*500), "a copy of each Lease takes more than 500 bytes")
}

// standbyPasses makes a standby of a claim with so many slots decide once for each iteration.
func standbyPasses(b *testing.B, slots int) {
	start := time.Now()
	server, clock := newServer(), func() time.Duration { return time.Since(start) + time.Hour }
	var names []string
	for i := range slots {
		name := fmt.Sprintf("semaphore.pool.%02d", i)
		names = append(names, name)
		server.put(&kube.Lease{
			Name: name, Holder: "other-" + strconv.Itoa(i) + "_u", DurationSeconds: 30,
			AcquireTime: time.Now(), RenewTime: time.Now(), Transitions: 1,
		})
	}
	gates := newGates(clock)
	a, err := New(Config{
		Pod: Pod{
			PodName: "p", PodUID: "u", PodIP: "10.0.0.1",
			Containers: []string{"app"}, Workload: "Deployment/app", BootID: boot,
		},
		Claims: Claims{Slots: names, Any: true},
		Outside: Outside{
			API: &link{server: server}, Gate: gates, Shims: gates, Clock: clock, Leaps: make(chan struct{}),
			Log: slog.New(slog.DiscardHandler), Random: rand.NewPCG(1, 2),
		},
	})
	require.NoError(b, err)
	done := make(chan error, 1)
	go func() { done <- a.Run(b.Context(), nil) }()
	for sees := false; !sees; {
		known := make(chan bool)
		a.loop.posts.post(b.Context(), func(time.Duration) {
			known <- !slices.ContainsFunc(a.unit.claim.Views(), func(v claim.View) bool { return v.FreeAt == instant.Never })
		})
		sees = <-known
	}
	b.ReportAllocs()
	for b.Loop() {
		a.loop.posts.post(b.Context(), func(time.Duration) {})
	}
}
