// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"bufio"
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/console/serve"
)

// pipes is a listener in memory, so that a bubble's clock decides about all timeouts.
type pipes struct {
	come chan net.Conn
	gone chan struct{}
	// The field "open" counts the server's ends that are open.
	open *atomic.Int32
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.come:
		p.open.Add(1)
		return &counted{Conn: c, closed: sync.OnceFunc(func() { p.open.Add(-1) })}, nil
	case <-p.gone:
		return nil, net.ErrClosed
	}
}

// counted is the server's end of a connection.
type counted struct {
	net.Conn
	closed func()
}

func (c *counted) Close() error {
	c.closed()
	return c.Conn.Close()
}

func (p pipes) Close() error { close(p.gone); return nil }

func (p pipes) Addr() net.Addr { return &net.UnixAddr{} }

// paging is the page's server in a bubble of package synctest. The server runs as in the console.
type paging struct {
	*testing.T
	pipes
}

// pages runs a test in a bubble with the page's server.
func pages(t *testing.T, test func(p paging)) {
	synctest.Test(t, func(t *testing.T) {
		p := paging{t, pipes{make(chan net.Conn), make(chan struct{}), new(atomic.Int32)}}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- serveUntil(ctx, p.pipes, maxPageConnections, pageServer(serve.New().Handler())) }()
		test(p)
		cancel()
		assert.NoError(t, <-ended)
	})
}

// asks connects, and sends a text.
func (p paging) asks(sends string) net.Conn {
	ours, theirs := net.Pipe()
	p.Cleanup(func() { ours.Close() })
	p.come <- theirs
	_, _ = io.WriteString(ours, sends)
	return ours
}

// connections returns the number of open connections.
func (p paging) connections() int {
	synctest.Wait()
	return int(p.open.Load())
}

const (
	readsStream = "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"
	readsStyle  = "GET /console.css HTTP/1.1\r\nHost: localhost\r\n\r\n"
)

func TestConsoleClosesPageConnectionsThatNobodyUses(t *testing.T) {
	for name, c := range map[string]struct {
		sends string
		most  time.Duration
		reads bool
	}{
		"silence":                      {"", headerTimeout, true},
		"half a header":                {"GET / HTTP/1.1\r\nHost: ", headerTimeout, true},
		"half a body":                  {"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nx", bodyTimeout, true},
		"an answer":                    {readsStyle, idleTimeout, true},
		"an answer that nobody reads":  {readsStyle, answerTimeout, false},
		"a refusal that nobody reads":  {"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", answerTimeout, false},
		"a stream that nobody reads":   {readsStream, time.Minute, false},
		"a body that nobody asked for": {"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", bodyTimeout, true},
	} {
		t.Run(name, func(t *testing.T) {
			pages(t, func(p paging) {
				connection := p.asks(c.sends)
				require.Equal(t, 1, p.connections())
				if c.reads {
					go func() { _, _ = io.Copy(io.Discard, connection) }()
				}
				<-time.After(c.most + time.Second)
				assert.Zero(t, p.connections())
			})
		})
	}
}

func TestConsoleStreamOutlivesTheTimeoutsOfRequests(t *testing.T) {
	pages(t, func(p paging) {
		stream := bufio.NewReader(p.asks(readsStream))
		begun := time.Now()
		for time.Since(begun) < 10*answerTimeout {
			_, err := stream.ReadString('\n')
			require.NoError(t, err, "after %s", time.Since(begun))
		}
	})
}

func TestConnectionFloodNeverEndsAnOpenConsoleStream(t *testing.T) {
	pages(t, func(p paging) {
		stream := bufio.NewReader(p.asks(readsStream))
		for i := range 3 * maxPageConnections {
			p.asks([]string{"", readsStyle}[i%2]) // nobody reads the answers
			require.LessOrEqual(t, p.connections(), maxPageConnections)
		}
		for range 20 {
			_, err := stream.ReadString('\n')
			require.NoError(t, err)
		}
	})
}
