// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"net"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// isClosed reports whether the channel is closed.
func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// refused reports whether a connection to the port is refused. If the kernel accepts the
// connection just before the listener closes, the result is false.
func refused(t *testing.T, port int) bool {
	t.Helper()
	conn, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port))
	if err == nil {
		conn.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// isFree reports whether no socket listens on the port. Unlike refused, isFree opens no connection,
// so a linger does not become longer.
func isFree(t *testing.T, port int) bool {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:"+strconv.Itoa(port))
	if err == nil {
		l.Close()
	}
	return err == nil
}

func TestLingerEndsOnceConnectionsStopArriving(t *testing.T) {
	// On a busy machine the test may pause for longer than the delay, and then shows nothing. So the
	// test tries longer delays.
	for delay := 200 * time.Millisecond; delay < 4*time.Second; delay *= 2 {
		if lingerLastsWhileConnectionsArrive(t, delay) {
			return
		}
		t.Logf("the test paused for longer than %v", delay)
	}
	t.Skip("the machine is too busy for this test")
}

// lingerLastsWhileConnectionsArrive requires that a linger accepts each of many connections, and ends
// after the last of them. The result is false if the test itself paused for longer than the delay, so
// the linger was free to end.
func lingerLastsWhileConnectionsArrive(t *testing.T, delay time.Duration) bool {
	t.Helper()
	port := app(t, holder+":0", echo)
	f := standby(t, Config{Ports: []int{port}})
	defer f.Close()
	f.SetTarget(holder)
	began := time.Now()
	left, last := f.Linger(delay), began
	for next := began; next.Sub(began) < 5*delay; next = time.Now() {
		if refused(t, port) {
			require.Greater(t, time.Since(last), delay, "the linger has ended between two connections")
			return false
		}
		last = next
	}
	eventually(t, func() bool { return isFree(t, port) })
	assert.Greater(t, time.Since(last), delay)
	eventually(t, func() bool { return isClosed(left) })
	return true
}

func TestForwarderAcceptsNewConnectionsDuringItsLingerDelay(t *testing.T) {
	port := app(t, holder+":0", echo)
	f := standby(t, Config{Ports: []int{port}})
	f.SetTarget(holder)
	left := f.Linger(time.Hour)
	conn := connect(t, port)
	exchange(t, conn, "a new connection")
	require.NoError(t, f.Open(), "Open does nothing in a linger")
	assert.False(t, isClosed(left))
	f.Close()
	assert.True(t, isClosed(left), "Close cuts the linger short")
	requireReset(t, conn)
}

func TestLingeringForwarderRelaysConnectionsUntilTheyEnd(t *testing.T) {
	for name, delay := range map[string]time.Duration{"at once": 0, "after a delay": 20 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			port := app(t, holder+":0", echo)
			f := standby(t, Config{Ports: []int{port, 0}})
			f.SetTarget(holder)
			conn := connect(t, port)
			exchange(t, conn, "before")
			left := f.Linger(delay)
			eventually(t, func() bool { return isFree(t, port) })
			require.NoError(t, f.Open())
			assert.True(t, refused(t, port), "a lingering forwarder listens no more")
			exchange(t, conn, "after")
			assert.False(t, isClosed(left))
			conn.Close()
			eventually(t, func() bool { return isClosed(left) })
			f.Close()
			require.NoError(t, f.Open())
			exchange(t, connect(t, port), "open again")
		})
	}
}

func TestWaitingConnectionsReachNextHolderThroughLingeringForwarder(t *testing.T) {
	port := app(t, holder+":0", answer("holder"))
	f := standby(t, Config{Ports: []int{port}})
	conn := connect(t, port)
	eventually(t, func() bool { return f.Stats().Waiting == 1 })
	left := f.Linger(0)
	eventually(t, func() bool { return refused(t, port) })
	f.SetTarget(holder)
	assert.Equal(t, "holder read x", ask(t, conn, "x"))
	eventually(t, func() bool { return isClosed(left) })
}

// On a busy machine the accept loops can be late. In this test the only place is taken, so the second
// connection stays in the queue, too.
func TestLingerGivesAQueuedConnectionASecondDelay(t *testing.T) {
	const delay = 100 * time.Millisecond
	port := app(t, holder+":0", echo)
	f := standby(t, Config{Ports: []int{port}, MaxOpen: 1})
	f.SetTarget(holder)
	exchange(t, connect(t, port), "the only place")
	connect(t, port)
	began := time.Now()
	f.Linger(delay)
	eventually(t, func() bool { return isFree(t, port) })
	assert.GreaterOrEqual(t, time.Since(began), 2*delay)
}

// When the delay of Linger is over, the accept loop must end even if MaxOpen connections are open.
func TestLingeringForwarderClosesPortEvenAtConnectionLimit(t *testing.T) {
	port := app(t, holder+":0", echo)
	f := standby(t, Config{Ports: []int{port}, MaxOpen: 1})
	f.SetTarget(holder)
	conn := connect(t, port)
	exchange(t, conn, "the only place")
	left := f.Linger(0)
	eventually(t, func() bool { return refused(t, port) })
	assert.False(t, isClosed(left))
	conn.Close()
	eventually(t, func() bool { return isClosed(left) })
}

func TestClosedForwarderDoesNotLinger(t *testing.T) {
	f := closed(Config{Ports: []int{0}})
	assert.True(t, isClosed(f.Linger(time.Hour)))
	require.NoError(t, f.Open())
	f.Close()
}

func TestIdleTimeBeginsAnewWithEachConnection(t *testing.T) {
	assert.Greater(t, New(Config{}).Idle(), time.Hour, "no connection comes to a closed port")
	port := app(t, holder+":0", echo)
	f := standby(t, Config{Ports: []int{port}})
	defer f.Close()
	f.SetTarget(holder)
	eventually(t, func() bool { return f.Idle() > 50*time.Millisecond })
	began := time.Now()
	exchange(t, connect(t, port), "a new connection")
	idle := f.Idle()
	assert.Less(t, idle, time.Since(began))
}
