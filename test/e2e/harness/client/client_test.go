// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// runAgainst runs a client of the kind Kept, which stops at the fifth request, and
// returns its summary.
func runAgainst(t *testing.T, handler http.HandlerFunc) Summary {
	t.Helper()
	in, input := io.Pipe()
	count := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if count++; count == 5 {
			input.Close()
		}
		handler(w, r)
	}))
	defer server.Close()
	var out bytes.Buffer
	require.NoError(t, Run(Kept, server.Listener.Addr().String(), in, &out))
	var sum Summary
	require.NoError(t, json.Unmarshal(out.Bytes(), &sum))
	return sum
}

func TestTrafficClientKeepsOneConnectionForAllRequests(t *testing.T) {
	from := map[string]bool{}
	sum := runAgainst(t, func(_ http.ResponseWriter, r *http.Request) { from[r.RemoteAddr] = true })
	assert.Empty(t, sum.Failed)
	assert.GreaterOrEqual(t, sum.Answered, 5)
	assert.Len(t, from, 1)
}

func TestTrafficClientCountsABrokenConnectionOnce(t *testing.T) {
	in, input := io.Pipe()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	go func() {
		defer input.Close()
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		_, _ = conn.Read(make([]byte, 1000))
		conn.Close()
	}()
	var out bytes.Buffer
	require.NoError(t, Run(Kept, listener.Addr().String(), in, &out))
	var sum Summary
	require.NoError(t, json.Unmarshal(out.Bytes(), &sum))
	assert.Len(t, sum.Failed, 1)
	assert.Zero(t, sum.Answered)
}

func TestTrafficClientReportsItsLongestPause(t *testing.T) {
	r := run{}
	for _, between := range []time.Duration{every, 3 * time.Second, every / 2} {
		r.sends(between)
	}
	assert.Equal(t, 3*time.Second-every, r.sum.Paused)
}

func TestTrafficClientCountsRefusedConnectionsSeparately(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	var out bytes.Buffer
	r := run{address: listener.Addr().String(), out: &out}
	r.anew()
	r.requests.Wait()
	r.note(time.Now(), io.ErrUnexpectedEOF)
	assert.Len(t, r.sum.Failed, 2)
	assert.Equal(t, 1, r.sum.Refused())
}
