// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A pod has one hold of a claim at most. After a restart of the agent, the program of the earlier hold may
// work on. So another slot that is free does not help the next bid.
func TestOwnEarlierHoldRefusesBidAtOnce(t *testing.T) {
	for claims, path := range map[string]string{
		"semaphore/pool=2": "/v1/semaphore/pool/holds?", "rwlock/c=2": "/v1/rwlock/c/holds?as=reader&",
	} {
		t.Run(claims, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s := newRWServer(t, "semaphore.pool.0", "semaphore.pool.1")
				first := start(t, s, "first", claims)
				code, body := first.call(http.MethodPost, path+"heartbeat=5m")
				require.Equal(t, http.StatusCreated, code, body)
				first.kill()
				again, began := start(t, s, "first", claims), time.Now()
				code, body = again.call(http.MethodPost, path)
				assert.Equal(t, http.StatusConflict, code, body)
				assert.Equal(t, "first", body["holder"])
				assert.Less(t, time.Since(began), time.Second)
				code, body = again.call(http.MethodPost, path+"wait=1m")
				assert.Equal(t, http.StatusCreated, code, body)
			})
		})
	}
}

// Since the loss of its hold the agent has watched no Lease, and meanwhile the Lease has expired.
func TestForgottenLossNeverRefusesBid(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, newServer(t, "semaphore.pool.0", "semaphore.pool.1"), "first", "semaphore/pool=2")
		code, body := p.call(http.MethodPost, "/v1/semaphore/pool/holds?heartbeat=10s")
		require.Equal(t, http.StatusCreated, code, body)
		<-time.After(time.Hour)
		code, body = p.call(http.MethodPost, "/v1/semaphore/pool/holds")
		assert.Equal(t, http.StatusCreated, code, body)
	})
}
