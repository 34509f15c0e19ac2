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
