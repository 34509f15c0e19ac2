// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/gate"
)

// A program that closes its half of the connection after the request can still read the answer. For
// package http the context of such a request has ended.
func TestHalfClosedConnectionNeverGetsAnEmptySuccess(t *testing.T) {
	p := start(t, newServer(t, "lock.a"), "first", "lock/a, rwlock/b=2, variable/v, barrier/warm=2")
	web := httptest.NewServer(p.handler)
	defer web.Close()
	number := p.hold("?heartbeat=5m")
	for _, call := range []string{
		"PUT /v1/lock/a/holds/" + number,
		"GET /v1/lock/a",
		"PUT /locks/a", "GET /locks/a",
		"POST /v1/lock/a/holds",
		"POST /v1/lock/a/holds?wait=1s",
		"POST /v1/holds?claims=lock/a", "POST /v1/holds?claims=lock/a&wait=1s",
		"GET /v1/variable/v", "PUT /v1/variable/v",
		"GET /v1/barrier/warm", "POST /v1/barrier/warm/wait?wait=1s",
	} {
		for range 30 {
			conn, err := net.Dial("tcp", web.Listener.Addr().String())
			require.NoError(t, err)
			_, err = io.WriteString(conn, call+" HTTP/1.1\r\nHost: localhost\r\n\r\n")
			require.NoError(t, err)
			require.NoError(t, conn.(*net.TCPConn).CloseWrite())
			answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				conn.Close()
				continue // no answer at all promises nothing
			}
			body, _ := io.ReadAll(answer.Body) // a cut body is no empty body
			answer.Body.Close()
			conn.Close()
			if answer.StatusCode < 300 {
				assert.NotEmpty(t, body, call)
			}
		}
	}
}

// late is the context of a call whose program closes its connection just after the bid has got its hold.
type late struct{ context.Context }

func (late) Done() <-chan struct{} { return nil }

func (late) Err() error { return context.Canceled }

func TestClosedConnectionsBidGetsNoSuccess(t *testing.T) {
	for call, status := range map[[2]string]int{
		{http.MethodPost, "/v1/lock/a/holds"}:        http.StatusGone,
		{http.MethodPost, "/v1/holds?claims=lock/a"}: http.StatusGone,
		{http.MethodPut, "/locks/a"}:                 http.StatusConflict,
	} {
		bubble(t, func(t *testing.T) {
			s := newServer(t, "lock.a")
			p := start(t, s, "first", "lock/a")
			w := httptest.NewRecorder()
			p.handler.ServeHTTP(w, request(late{t.Context()}, call[0], call[1]))
			assert.Equal(t, status, w.Code, call)
			after(time.Second)
			assert.Empty(t, holder(s))
		})
	}
}

func TestHalfClosedSyncClientLearnsOfItsLoss(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, newServer(t, "lock.a"), "first", "lock/a")
		require.Equal(t, http.StatusOK, p.status(http.MethodPut))
		after(time.Minute)
		ctx, end := context.WithCancel(t.Context())
		end()
		for range 20 {
			w := httptest.NewRecorder()
			p.handler.ServeHTTP(w, request(ctx, http.MethodGet, "/locks/a"))
			assert.Equal(t, http.StatusNotFound, w.Code)
		}
	})
}

func TestSyncClientLearnsThatItsAgentStops(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := start(t, newServer(t, "lock.a"), "first", "lock/a")
		require.Equal(t, http.StatusOK, p.status(http.MethodPut))
		close(p.stop)
		require.NoError(t, <-p.ended)
		assert.Equal(t, http.StatusNotFound, p.status(http.MethodGet), "the agent renews the hold no longer")
	})
}

// The renewal of a frozen program's hold is late, and the client closes its half of the connection.
func TestHalfClosedGetDuringLeapGetsNoSuccess(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := newServer(t, "lock.a")
		p, g := startLeashed(t, s, "first", "lock/a")
		require.Equal(t, http.StatusOK, p.status(http.MethodPut))
		s.SetAway(true)
		g.reports <- gate.Report{Shim: "shim", Container: "app", Phase: gate.Running, Hold: g.last().Hold, Connected: true, Leap: 1}
		after(time.Second)
		get := p.stream(http.MethodGet, "/locks/a")
		after(time.Second)
		get.end()
		<-get.done
		assert.Equal(t, http.StatusNotFound, get.code)
	})
}
