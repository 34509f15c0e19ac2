// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// probing serves the probes as the console does, and returns the server's address.
func probing(t *testing.T) string {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- serveUntil(ctx, listener, maxConnections, probeServer(probes(func() bool { return true })))
	}()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-ended)
	})
	return listener.Addr().String()
}

// dials connects from the given address, sends a text, and sets one deadline for all reads.
func dials(t *testing.T, from, to, sends string) net.Conn {
	t.Helper()
	c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext(t.Context(), "tcp", to)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	require.NoError(t, c.SetReadDeadline(time.Now().Add(soon)))
	_, _ = io.WriteString(c, sends)
	return c
}

func TestManyConnectionsOfOnePeerNeverBlockProbes(t *testing.T) {
	t.Parallel()
	for name, sends := range map[string]string{"silent peers": "", "peers with half a request": "GET /healthz HTTP/1.1\r\nHost: "} {
		t.Run(name, func(t *testing.T) {
			address := probing(t)
			var all []net.Conn
			for range 10 * maxConnections {
				all = append(all, dials(t, "127.0.0.2", address, sends))
			}
			begun := time.Now()
			answer, err := io.ReadAll(dials(t, "127.0.0.3", address, "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"))
			require.NoError(t, err)
			assert.Contains(t, string(answer), "200 OK")
			for _, c := range all[:9*maxConnections] {
				_, err := io.ReadAll(c)
				assert.NotErrorIs(t, err, os.ErrDeadlineExceeded)
			}
			assert.Less(t, time.Since(begun), probeTimeout, "surplus connections are closed at once")
		})
	}
}

func TestProbeServerClosesSilentAndUnfinishedConnections(t *testing.T) {
	for name, sends := range map[string]string{
		"a probe":        "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
		"silence":        "",
		"half a request": "GET /healthz HTTP/1.1\r\nHost: ",
		"half a body":    "GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nx",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := io.ReadAll(dials(t, "127.0.0.2", probing(t), sends))
			require.NoError(t, err, "the server closes the connection")
		})
	}
}

func TestProbeServerClosesConnectionAfterEachAnswer(t *testing.T) {
	address := probing(t)
	for range 2 * maxConnections {
		response, err := http.Get(fmt.Sprintf("http://%s/readyz", address))
		require.NoError(t, err)
		assert.True(t, response.Close, "the connection ends with its answer")
		response.Body.Close()
	}
}
