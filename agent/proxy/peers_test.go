// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// app runs an application at one address. The function "handle" gets each connection, and closes
// it.
func app(t *testing.T, address string, handle func(*net.TCPConn)) (port int) {
	t.Helper()
	return listenInOrder(t, address, func(_ int, conn *net.TCPConn) { handle(conn) })
}

// listenInOrder runs an application as app does. The handler also gets the connection's place in the
// order of acceptance, from zero. Under load the handlers start in another order.
func listenInOrder(t *testing.T, address string, handle func(place int, conn *net.TCPConn)) (port int) {
	t.Helper()
	listener, err := listen(address)
	require.NoError(t, err)
	var running sync.WaitGroup
	running.Go(func() {
		for place := 0; ; place++ {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() { handle(place, conn.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		running.Wait()
	})
	return listener.Addr().(*net.TCPAddr).Port
}

// listen listens at the address. The port zero stands for a port that is free at all loopback
// addresses. This port is below the range from which the kernel chooses ports for other programs.
func listen(address string) (net.Listener, error) {
	host, zero, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	for zero == "0" {
		port := strconv.Itoa(12_000 + rand.IntN(16_000))
		everywhere, err := net.Listen("tcp4", ":"+port)
		if err != nil {
			continue
		}
		everywhere.Close()
		if listener, err := net.Listen("tcp", net.JoinHostPort(host, port)); err == nil {
			return listener, nil
		}
	}
	return net.Listen("tcp", address)
}

// answer returns a handler that reads the client's request to its end. Then the handler sends
// the name followed by the request.
func answer(name string) func(*net.TCPConn) {
	return func(conn *net.TCPConn) {
		defer conn.Close()
		request, _ := io.ReadAll(conn)
		_, _ = io.WriteString(conn, name+" read "+string(request))
	}
}

// echo sends each byte back as it arrives.
func echo(conn *net.TCPConn) {
	defer conn.Close()
	_, _ = io.Copy(conn, conn)
}

// standby opens a forwarder on the loopback address.
func standby(t *testing.T, config Config) *Forwarder {
	t.Helper()
	f := closed(config)
	require.NoError(t, f.Open())
	t.Cleanup(f.Close)
	return f
}

func closed(config Config) *Forwarder {
	f := New(config)
	f.listenHost = "127.0.0.1"
	f.isSelf = func(addr netip.Addr) bool { return addr == netip.MustParseAddr("127.0.0.1") }
	return f
}

func connect(t *testing.T, port int) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port))
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(soon)))
	return conn.(*net.TCPConn)
}

// ask sends a request, closes the connection for writing, and returns the whole answer.
func ask(t *testing.T, conn *net.TCPConn, request string) string {
	t.Helper()
	_, err := io.WriteString(conn, request)
	require.NoError(t, err)
	require.NoError(t, conn.CloseWrite())
	reply, err := io.ReadAll(conn)
	require.NoError(t, err)
	return string(reply)
}

// exchange sends text to an application that echoes it, and waits for the echo.
func exchange(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	_, err := io.WriteString(conn, text)
	require.NoError(t, err)
	reply := make([]byte, len(text))
	_, err = io.ReadFull(conn, reply)
	require.NoError(t, err)
	require.Equal(t, text, string(reply))
}

func requireReset(t *testing.T, conn net.Conn) {
	t.Helper()
	_, err := io.ReadAll(conn)
	require.ErrorIs(t, err, syscall.ECONNRESET, "a failure must not look like a regular end")
}

func eventually(t *testing.T, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, soon, time.Millisecond)
}
