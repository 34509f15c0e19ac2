// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/crowd"
)

// pipes is a listener whose connections are pipes in memory, so that a test can simulate the time.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Net: "unix", Name: "pipe"} }

// dial connects to the server, and sends the text.
func (p *pipes) dial(t *testing.T, text string) net.Conn {
	t.Helper()
	program, agent := net.Pipe()
	t.Cleanup(func() { program.Close() })
	p.conns <- agent
	_, err := io.WriteString(program, text)
	require.NoError(t, err)
	return program
}

// Each connection counts toward the bound of all connections, so a stalled program must not keep
// its connection for ever.
func TestStalledProgramFreesItsPlaceForAnother(t *testing.T) {
	for name, test := range map[string]struct {
		sends string
		reads bool
	}{
		"reads no answer":               {sends: "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"},
		"reads no answer of two":        {sends: "GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n"},
		"reads no refusal":              {sends: "no request\r\n\r\n"},
		"sends no body":                 {sends: "HEAD / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n", reads: true},
		"sends no body to a wrong host": {sends: "POST / HTTP/1.1\r\nHost: page.example\r\nContent-Length: 9\r\n\r\n", reads: true},
		"sends no body of options":      {sends: "OPTIONS * HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n", reads: true},
		"sends no whole header":         {sends: "GET / HTTP/1.1\r\nHost: ", reads: true},
		"sends no second request":       {sends: "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", reads: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, end := context.WithCancel(t.Context())
				defer synctest.Wait()
				defer end()
				l := newPipes()
				answer(ctx, l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }),
					&crowd.Crowd{Most: 1, Refuses: true})
				stalled := l.dial(t, test.sends)
				if test.reads {
					go func() { _, _ = io.Copy(io.Discard, stalled) }()
				}
				<-time.After(localIdle + time.Second)
				next := l.dial(t, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
				response, err := http.ReadResponse(bufio.NewReader(next), nil)
				require.NoError(t, err)
				defer response.Body.Close()
				assert.Equal(t, http.StatusNoContent, response.StatusCode)
			})
		})
	}
}

// Some calls without a wait take more than a minute, for example a call for eight claims during an
// outage of the API server.
func TestSlowAnswerOfLocalAPIIsNeverCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, end := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer end()
		l := newPipes()
		answer(ctx, l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			<-time.After(80 * time.Second)
			w.WriteHeader(http.StatusNoContent)
		}), &crowd.Crowd{Most: 1, Refuses: true})
		program := l.dial(t, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
		response, err := http.ReadResponse(bufio.NewReader(program), nil)
		require.NoError(t, err)
		defer response.Body.Close()
		assert.Equal(t, http.StatusNoContent, response.StatusCode)
	})
}
