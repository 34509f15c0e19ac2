// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/crowd"
)

// listening serves a handler with the settings of the agent's port, and returns the address.
func listening(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	serveHTTP(t.Context(), l, handler)
	return l.Addr().String()
}

// dialled acts as a slow peer: the function opens a connection between the two addresses, and
// sends the text.
func dialled(t *testing.T, from, to, sends string) net.Conn {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 10 * time.Second}
	c, err := dialer.DialContext(t.Context(), "tcp", to)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	_, _ = io.WriteString(c, sends)
	return c
}

// The function "asks" acts as a kubelet at the address "from". This kubelet sends one probe to the
// address "to", and returns the status of the answer.
func asks(t *testing.T, from, to string) (int, error) {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, address)
		},
	}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+to+"/probe/app/liveness", nil)
	require.NoError(t, err)
	response, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	return response.StatusCode, nil
}

// inUse returns the memory in use by the heap and all stacks.
func inUse() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapInuse + m.StackInuse)
}

func TestProbesAreAnsweredDespiteThousandsOfConnections(t *testing.T) {
	for name, sends := range map[string]string{
		"silent":            "",
		"half a request":    "GET /probe/app/liveness HTTP/1.1\r\nHost: ",
		"hanging in probes": "GET /hang HTTP/1.1\r\nHost: agent\r\n\r\n",
		"asking":            "POST /support HTTP/1.1\r\nHost: agent\r\nContent-Length: 3\r\n\r\nask",
		"asking slowly":     "POST /support HTTP/1.1\r\nHost: agent\r\nContent-Length: 500\r\n\r\nask",
		"asking for ever":   "POST /support HTTP/1.1\r\nHost: agent\r\nTransfer-Encoding: chunked\r\n\r\n1ff\r\n" + strings.Repeat("a", 511),
	} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan struct{})
			defer close(ended)
			hangs := func(ctx context.Context) {
				select {
				case <-ended:
				case <-ctx.Done():
				}
			}
			loop := answerer(func(ctx context.Context, _ string) (string, error) {
				hangs(ctx)
				return "", errors.New("no time")
			})
			address := listening(t, func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/hang":
					hangs(r.Context())
				case supportPath:
					loop.ServeHTTP(w, r)
				}
			})
			before := inUse()
			var all []net.Conn
			for range 4000 {
				all = append(all, dialled(t, "127.0.0.2", address, sends))
			}
			status, err := asks(t, "127.0.0.3", address)
			require.NoError(t, err, "a probe is answered beside them")
			assert.Equal(t, http.StatusOK, status)
			// The test keeps its ends of all 4000 connections open, and these ends need memory,
			// too. The agent keeps its ends of only 64 connections open.
			assert.Less(t, inUse()-before, 16<<20)
			// The agent closes a surplus connection before it serves the next one. The client may
			// see the close of a connection a moment later.
			open := all
			for by := time.Now().Add(headerTimeout / 2); len(open) > mostConnections && time.Now().Before(by); {
				open = slices.DeleteFunc(open, func(c net.Conn) bool {
					_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
					_, err := c.Read(make([]byte, 1))
					return !errors.Is(err, os.ErrDeadlineExceeded)
				})
			}
			assert.LessOrEqual(t, len(open), mostConnections)
		})
	}
}

func TestConnectionWithoutAWholeHeaderIsClosed(t *testing.T) {
	address := listening(t, func(http.ResponseWriter, *http.Request) {})
	c := dialled(t, "127.0.0.2", address, "GET / HTTP/1.1\r\n")
	_ = c.SetReadDeadline(time.Now().Add(headerTimeout + 5*time.Second))
	_, err := io.ReadAll(c)
	require.NoError(t, err, "hung up on")
}

func TestConnectionTakenByHandlerStillCounts(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	taken := make(chan net.Conn, 2)
	ctx, end := context.WithCancel(t.Context())
	answer(ctx, l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		assert.NoError(t, err)
		taken <- conn
	}), &crowd.Crowd{Most: 1, Refuses: true})
	const asks = "GET / HTTP/1.1\r\nHost: agent\r\n\r\n"
	ends := func(c net.Conn) bool {
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, err := c.Read(make([]byte, 1))
		return !errors.Is(err, os.ErrDeadlineExceeded)
	}
	dialled(t, "127.0.0.2", l.Addr().String(), asks)
	first := <-taken
	assert.True(t, ends(dialled(t, "127.0.0.2", l.Addr().String(), asks)), "the crowd is full")
	require.NoError(t, first.Close())
	last := dialled(t, "127.0.0.2", l.Addr().String(), asks)
	<-taken
	end()
	assert.True(t, ends(last), "the end of the server ends each connection")
}
