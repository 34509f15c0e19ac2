// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/api"
)

// The API server refuses watches, but answers all reads and writes.
func TestRefusedWatchesDelayAWaitingBidOnlyBriefly(t *testing.T) {
	for _, claim := range []struct{ name, first, then string }{
		{"lock/a", "/v1/lock/a/holds?heartbeat=5m", "/v1/lock/a/holds?heartbeat=5m"},
		{"rwlock/c=1", writePath, readPath}, {"rwlock/c=16", writePath, readPath}, {"rwlock/c=2", readPath, writePath},
	} {
		t.Run(claim.name+claim.then, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newServer(t, append((api.Claim{Kind: api.RWLock, Name: "c", Size: 1}).Slots(api.Workload{}), "lock.a")...)
				s.refusesWatches.Store(true)
				first, next := start(t, s, "first", claim.name), start(t, s, "next", claim.name)
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
		s := newRWServer(t)
		s.Delete(api.RWLockLease("c", 15))
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
