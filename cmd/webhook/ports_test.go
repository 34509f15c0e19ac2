// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
)

// opened starts a bounded server on the loopback, and returns its address and its listener.
func opened(t *testing.T, handler http.Handler) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := boundedServer("test", listener, handler)
	assert.False(t, s.NeedLeaderElection(), "each replica serves the port")
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error)
	go func() { ended <- s.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-ended)
	})
	return listener.Addr().String()
}

// got sends a GET over a connection, and returns the status and the text of the answer.
func got(t *testing.T, connection net.Conn, path, header string) (int, string) {
	t.Helper()
	require.NoError(t, connection.SetDeadline(time.Now().Add(20*time.Second)))
	_, _ = io.WriteString(connection, "GET "+path+" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"+header+"\r\n")
	answer, err := http.ReadResponse(bufio.NewReader(connection), nil)
	require.NoError(t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return answer.StatusCode, string(text)
}

func TestMetricsAndProbesHaveTheUsualPaths(t *testing.T) {
	failed := func(*http.Request) error { return errors.New("not yet") }
	probes := opened(t, probesHandler(map[string]healthz.Checker{"process": healthz.Ping}, map[string]healthz.Checker{"caches": failed}))
	for path, want := range map[string]int{"/healthz": 200, "/healthz/process": 200, "/readyz": 500, "/readyz/caches": 500, "/metrics": 404} {
		status, _ := got(t, from(t, "127.0.0.1", probes), path, "")
		assert.Equal(t, want, status, path)
	}
	port := opened(t, metricsHandler())
	status, text := got(t, from(t, "127.0.0.1", port), "/metrics", "Accept-Encoding: gzip\r\n")
	assert.Equal(t, http.StatusOK, status)
	assert.Contains(t, text, "metaparticle_certificate_expires_timestamp_seconds")
}

func TestPortsForMetricsAndProbesBoundEachConnection(t *testing.T) {
	var served atomic.Bool
	address := opened(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served.Store(true) }))
	for name, text := range map[string]string{
		"a long header":        "GET /metrics HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("a", 2*maxPortHeader) + "\r\n\r\n",
		"an unfinished header": "GET /metrics HTTP/1.1\r\nX: ",
	} {
		connection := from(t, "127.0.0.1", address)
		require.NoError(t, connection.SetDeadline(time.Now().Add(20*time.Second)))
		_, _ = io.WriteString(connection, text)
		_, err := io.ReadAll(connection)
		assert.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the server ends the connection: %s", name)
	}
	assert.False(t, served.Load())
}

func TestFloodOfAPortNeverBlocksOtherClients(t *testing.T) {
	address := opened(t, metricsHandler())
	var all []net.Conn
	for range 3 * maxPortConnections {
		all = append(all, from(t, "127.0.0.2", address))
		_, _ = io.WriteString(all[len(all)-1], "GET /metrics HTTP/1.1\r\nX: ")
	}
	status, _ := got(t, from(t, "127.0.0.1", address), "/metrics", "")
	assert.Equal(t, http.StatusOK, status)
	closed := 0
	for _, c := range all {
		_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			closed++
		}
	}
	assert.GreaterOrEqual(t, closed, len(all)-maxPortConnections)
}
