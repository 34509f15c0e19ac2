// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// blindServer refuses each watch, as an API server under load does. All reads and writes work.
type blindServer struct{ *server }

func (b blindServer) WatchLease(context.Context, string, string, func(kube.WatchEvent)) error {
	<-time.After(time.Millisecond)
	return &kube.StatusError{Code: 429}
}

func startBlind(t *testing.T, s *server, name, claims string) *pod {
	t.Helper()
	args, err := api.ParseLocalArgs([]string{"-claims=" + claims})
	require.NoError(t, err)
	began := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	p := &pod{t: t, name: name, leaps: make(chan struct{}), stop: make(chan struct{}), ended: make(chan error, 1)}
	a, err := New(Config{
		PodName: name, PodUID: "u", PodIP: "10.0.0.1", Claims: args.Claims, BootID: "boot",
		Leases: blindServer{s}, Variables: &s.variables, Leaps: p.leaps, Clock: func() time.Duration { return time.Since(began) },
		Random: func() rand.Source { return rand.NewPCG(3, starts.Add(1)) },
	})
	require.NoError(t, err)
	p.handler = a.Handler()
	ctx, kill := context.WithCancel(t.Context())
	p.kill = kill
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.ended <- a.Run(ctx, p.stop)
	}()
	t.Cleanup(func() { kill(); <-done })
	return p
}

// The API server refuses watches, but answers all reads and writes.
func TestRefusedWatchesDelayAWaitingBidOnlyBriefly(t *testing.T) {
	for _, claim := range []struct{ name, first, then string }{
		{"lock/a", "/v1/lock/a/holds?heartbeat=5m", "/v1/lock/a/holds?heartbeat=5m"},
		{"rwlock/c=1", writePath, readPath}, {"rwlock/c=16", writePath, readPath}, {"rwlock/c=2", readPath, writePath},
	} {
		t.Run(claim.name+claim.then, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newServer(append((api.Claim{Kind: api.RWLock, Name: "c", Size: 1}).Slots(api.Workload{}), "lock.a")...)
				first, next := startBlind(t, s, "first", claim.name), startBlind(t, s, "next", claim.name)
				code, body := first.call(http.MethodPost, claim.first+"&wait=10m")
				require.Equal(t, http.StatusCreated, code, body)
				waits := next.stream(http.MethodPost, claim.then+"&wait=24h")
				after(100 * time.Second)
				number := body["hold"].(string)
				path := "/v1/" + claim.name[:len("lock/a")] + "/holds/"
				if claim.name != "lock/a" {
					path = "/v1/rwlock/c/holds/"
				}
				code, _ = first.call(http.MethodDelete, path+number)
				require.Equal(t, http.StatusNoContent, code)
				began := time.Now()
				select {
				case <-waits.done:
				case <-time.After(23 * time.Hour):
				}
				assert.Less(t, time.Since(began), 15*time.Second+time.Minute)
			})
		})
	}
}

// The Lease of a slot is gone, and enroll does not run. So no writer can acquire all slots.
func TestReadersAcquireSlotsWhileWriterAwaitsMissingLease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newRWServer()
		s.change(func() { delete(s.leases, api.RWLockLease("c", 15)) })
		writer, reader := start(t, s, "writer", "rwlock/c=2"), start(t, s, "reader", "rwlock/c=2")
		writer.stream(http.MethodPost, writePath+"&wait=24h")
		after(time.Second)
		refused := 0
		for range 200 {
			after(3 * time.Second)
			code, body := reader.call(http.MethodPost, readPath)
			if code != http.StatusCreated {
				refused++
				continue
			}
			reader.call(http.MethodDelete, "/v1/rwlock/c/holds/"+body["hold"].(string))
		}
		assert.Less(t, refused, 20)
	})
}
