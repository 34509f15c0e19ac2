// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The application ends its direction first, and the client must still be able to send.
func TestHalfCloseByApplicationReachesTheClient(t *testing.T) {
	received := make(chan string, 1)
	port := app(t, holder+":0", func(conn *net.TCPConn) {
		defer conn.Close()
		_, _ = io.WriteString(conn, "goodbye")
		_ = conn.CloseWrite()
		rest, _ := io.ReadAll(conn)
		received <- string(rest)
	})
	f := standby(t, Config{Ports: []int{port}})
	f.SetTarget(holder)
	conn := connect(t, port)
	greeting, err := io.ReadAll(conn)
	require.NoError(t, err)
	assert.Equal(t, "goodbye", string(greeting))
	_, err = io.WriteString(conn, "and more")
	require.NoError(t, err)
	require.NoError(t, conn.CloseWrite())
	assert.Equal(t, "and more", <-received)
	eventually(t, func() bool { return f.Stats() == Stats{Forwarded: 1} })
}

// sendUntilBlocked sends until the receiver takes no more, and returns the number of sent bytes.
func sendUntilBlocked(t *testing.T, conn *net.TCPConn) (sent int64) {
	data := make([]byte, 1<<16)
	for {
		assert.NoError(t, conn.SetWriteDeadline(time.Now().Add(200*time.Millisecond)))
		n, err := conn.Write(data)
		sent += int64(n)
		if err != nil {
			assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
			return sent
		}
	}
}

func TestForwarderBlocksTheSenderOfASlowReceiver(t *testing.T) {
	sent := make(chan int64, 1)
	port := app(t, holder+":0", func(conn *net.TCPConn) {
		defer conn.Close()
		sent <- sendUntilBlocked(t, conn)
		_ = conn.CloseWrite()
		_, _ = io.Copy(io.Discard, conn)
	})
	f := standby(t, Config{Ports: []int{port}})
	f.SetTarget(holder)
	conn := connect(t, port)
	total := <-sent
	assert.Less(t, total, int64(64<<20), "the kernel's buffers, and a pipe")
	received, err := io.Copy(io.Discard, conn)
	require.NoError(t, err)
	assert.Equal(t, total, received, "nothing is lost")
	_, err = io.WriteString(conn, "the other direction is independent")
	require.NoError(t, err)
}

func TestForwarderRelaysBetweenIPv4AndIPv6(t *testing.T) {
	for name, c := range map[string]struct{ listen, target string }{
		"v4 to v6": {"127.0.0.1", "::1"},
		"v6 to v4": {"::1", holder},
	} {
		t.Run(name, func(t *testing.T) {
			port := app(t, net.JoinHostPort(c.target, "0"), answer("holder"))
			f := closed(Config{Ports: []int{port}})
			f.listenHost = c.listen
			require.NoError(t, f.Open())
			t.Cleanup(f.Close)
			f.SetTarget(c.target)
			conn, err := net.Dial("tcp", net.JoinHostPort(c.listen, strconv.Itoa(port)))
			require.NoError(t, err)
			defer conn.Close()
			assert.Equal(t, "holder read x", ask(t, conn.(*net.TCPConn), "x"))
		})
	}
}

func TestConnectionIsRelayedIfSpliceIsUnavailable(t *testing.T) {
	for name, refusal := range map[string]error{"no descriptor is left": syscall.EMFILE, "a sandbox": syscall.ENOSYS} {
		t.Run(name, func(t *testing.T) {
			require.True(t, unsupported(refusal))
			port := app(t, holder+":0", answer("holder"))
			f := standby(t, Config{Ports: []int{port}})
			pipes.mu.Lock()
			idle := pipes.idle
			pipes.idle, pipes.open = nil, func() (*pipe, error) { return nil, refusal }
			pipes.mu.Unlock()
			t.Cleanup(func() {
				f.Close()
				pipes.idle, pipes.open = idle, openPipe
			})
			f.SetTarget(holder)
			assert.Equal(t, "holder read x", ask(t, connect(t, port), "x"))
		})
	}
}

// A pipe that contains data of one connection must not be used for another connection.
func TestBrokenConnectionLeavesNoDataForLaterConnections(t *testing.T) {
	port := app(t, holder+":0", func(conn *net.TCPConn) {
		_, _ = io.ReadFull(conn, make([]byte, 1))
		reset(conn)
	})
	f := standby(t, Config{Ports: []int{port}})
	f.SetTarget(holder)
	data := make([]byte, 1<<20)
	for range 50 {
		conn := connect(t, port)
		// The kernel reports the reset only once: either to the write, or to the read.
		_, err := conn.Write(data)
		if err == nil {
			_, err = io.ReadAll(conn)
		}
		require.Error(t, err)
		assert.True(t, errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE), err)
	}
	f.Close()
	echoed := app(t, holder+":0", echo)
	g := standby(t, Config{Ports: []int{echoed}})
	g.SetTarget(holder)
	exchange(t, connect(t, echoed), "only these")
}
