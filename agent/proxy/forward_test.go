// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// soon bounds the wait of a failing test.
const soon = time.Minute

// Tests run the holders on 127.0.0.2 and 127.0.0.3, and the standby on 127.0.0.1.
const (
	holder      = "127.0.0.2"
	otherHolder = "127.0.0.3"
)

func TestHalfCloseByClientReachesTheApplication(t *testing.T) {
	port := app(t, holder+":0", answer("holder"))
	f := standby(t, Config{Ports: []int{port}})
	f.SetTarget(holder)
	// The application answers only after the end of the request. So the client's half-close
	// must reach the application, and the answer must still reach the client.
	assert.Equal(t, "holder read hello", ask(t, connect(t, port), "hello"))
	eventually(t, func() bool { return f.Stats() == Stats{Forwarded: 1} })
}

func TestForwardedConnectionKeepsItsDestinationPort(t *testing.T) {
	web, admin := app(t, holder+":0", answer("web")), app(t, holder+":0", answer("admin"))
	f := standby(t, Config{Ports: []int{web, admin}})
	f.SetTarget(holder)
	assert.Equal(t, "admin read x", ask(t, connect(t, admin), "x"))
	assert.Equal(t, "web read x", ask(t, connect(t, web), "x"))
}

func TestConnectionsWaitThroughAHandover(t *testing.T) {
	port := app(t, otherHolder+":0", answer("new holder"))
	f := standby(t, Config{Ports: []int{port}})
	var waiting []*net.TCPConn
	for range 20 {
		conn := connect(t, port)
		_, err := io.WriteString(conn, "early ")
		require.NoError(t, err)
		waiting = append(waiting, conn)
	}
	eventually(t, func() bool { return f.Stats().Waiting == 20 })
	f.SetTarget(otherHolder)
	for _, conn := range waiting {
		assert.Equal(t, "new holder read early late", ask(t, conn, "late"))
	}
}

// reached lets 200 connections wait, and then sets the target. The result has, for the number of each
// connection in the order of arrival, its place among the connections that reach the holder.
func reached(t *testing.T) (order map[int]int) {
	t.Helper()
	var mu sync.Mutex
	order = map[int]int{}
	port := listenInOrder(t, otherHolder+":0", func(place int, conn *net.TCPConn) {
		defer conn.Close()
		var number int
		if _, err := fmt.Fscanf(conn, "%d\n", &number); err == nil {
			mu.Lock()
			defer mu.Unlock()
			order[number] = place
		}
	})
	f := standby(t, Config{Ports: []int{port}})
	for number := range waiters {
		_, err := fmt.Fprintf(connect(t, port), "%d\n", number)
		require.NoError(t, err)
		eventually(t, func() bool { return f.Stats().Waiting == int64(number+1) })
	}
	f.SetTarget(otherHolder)
	eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(order) == waiters
	})
	return order
}

const waiters = 200

// After a handover the connection that has waited longest should get its answer first. The order of
// two neighbours may change on the way, so the test compares the earlier half with the later half.
func TestWaitingConnectionsReachHolderInOrderOfArrival(t *testing.T) {
	order := reached(t)
	late := 0
	for number := waiters / 2; number < waiters; number++ {
		if order[number] < waiters/2 {
			late++
		}
	}
	assert.Less(t, late, waiters/8, "%v", order)
}

// A port may drop each connection request, for example behind a filter.
func TestSilentPortDelaysNoOtherPort(t *testing.T) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	require.NoError(t, err)
	t.Cleanup(func() { syscall.Close(fd) })
	require.NoError(t, syscall.Bind(fd, &syscall.SockaddrInet4{Addr: netip.MustParseAddr(holder).As4()}))
	require.NoError(t, syscall.Listen(fd, 0))
	name, err := syscall.Getsockname(fd)
	require.NoError(t, err)
	silent := name.(*syscall.SockaddrInet4).Port
	for range 2 { // these connections fill the queue of the port, which then drops further requests
		if conn, err := net.DialTimeout("tcp", holder+":"+strconv.Itoa(silent), 200*time.Millisecond); err == nil {
			t.Cleanup(func() { conn.Close() })
		}
	}
	web := app(t, holder+":0", answer("web"))
	f := standby(t, Config{Ports: []int{silent, web}})
	const silents = 4 * dialsAtOnce
	for range silents {
		connect(t, silent)
	}
	eventually(t, func() bool { return f.Stats().Waiting == silents })
	conn := connect(t, web)
	eventually(t, func() bool { return f.Stats().Waiting == silents+1 })
	began := time.Now()
	f.SetTarget(holder)
	assert.Equal(t, "web read x", ask(t, conn, "x"))
	assert.Less(t, time.Since(began), dialTimeout)
}

// A new holder writes its address into the Lease before its application listens.
func TestConnectionsWaitUntilTheHolderListens(t *testing.T) {
	f := standby(t, Config{Ports: []int{0}})
	port := f.Ports()[0]
	f.SetTarget(holder)
	conn := connect(t, port)
	_, err := io.WriteString(conn, "early ")
	require.NoError(t, err)
	eventually(t, func() bool { return f.Stats().Waiting == 1 })
	app(t, holder+":"+strconv.Itoa(port), answer("holder"))
	assert.Equal(t, "holder read early late", ask(t, conn, "late"))
}

func TestForwarderResetsConnectionsWhenTheHolderChanges(t *testing.T) {
	port := app(t, holder+":0", echo)
	app(t, otherHolder+":"+strconv.Itoa(port), answer("other"))
	f := standby(t, Config{Ports: []int{port}})
	f.SetTarget(holder)
	conn := connect(t, port)
	exchange(t, conn, "one")

	f.SetTarget(holder)
	exchange(t, conn, "the same target is no change")
	f.SetTarget("")
	exchange(t, conn, "a holder that drains finishes what it began")
	f.SetTarget(holder)
	exchange(t, conn, "and it may come back")

	f.SetTarget(otherHolder)
	requireReset(t, conn)
	assert.Equal(t, "other read x", ask(t, connect(t, port), "x"))
}

func TestForwarderResetsAConnectionThatWaitsTooLong(t *testing.T) {
	for name, target := range map[string]string{"no target": "", "a target that refuses": holder} {
		t.Run(name, func(t *testing.T) {
			f := standby(t, Config{Ports: []int{0}, Wait: 50 * time.Millisecond})
			f.SetTarget(target)
			requireReset(t, connect(t, f.Ports()[0]))
			eventually(t, func() bool { return f.Stats() == Stats{Abandoned: 1} })
		})
	}
}

func TestForwarderBoundsConnectionsThatAwaitAHolder(t *testing.T) {
	port := app(t, holder+":0", echo)
	f := standby(t, Config{Ports: []int{port}, MaxWaiting: 3})
	var waiting []*net.TCPConn
	for range 10 {
		waiting = append(waiting, connect(t, port)) // further connections wait in the kernel's queue
	}
	eventually(t, func() bool { return f.Stats().Waiting == 3 })
	assert.Never(t, func() bool { return f.Stats().Waiting > 3 }, 50*time.Millisecond, time.Millisecond)
	f.SetTarget(holder)
	for _, conn := range waiting {
		exchange(t, conn, "all are served in the end, while all are open")
	}
}

func TestForwarderLimitsTheNumberOfForwardedConnections(t *testing.T) {
	port := app(t, holder+":0", echo)
	f := standby(t, Config{Ports: []int{port}, MaxOpen: 2})
	f.SetTarget(holder)
	first, second, third := connect(t, port), connect(t, port), connect(t, port)
	exchange(t, first, "1")
	exchange(t, second, "2")
	assert.Never(t, func() bool { return f.Stats().Forwarded > 2 }, 50*time.Millisecond, time.Millisecond)
	first.Close()
	exchange(t, third, "3")
}

func TestHolderFailureResetsTheClientsConnection(t *testing.T) {
	port := app(t, holder+":0", func(conn *net.TCPConn) {
		_, _ = io.WriteString(conn, "half an ans")
		_, _ = io.ReadFull(conn, make([]byte, 1))
		reset(conn)
	})
	f := standby(t, Config{Ports: []int{port}})
	f.SetTarget(holder)
	conn := connect(t, port)
	_, err := io.ReadFull(conn, make([]byte, len("half an ans")))
	require.NoError(t, err)
	_, err = io.WriteString(conn, "x")
	require.NoError(t, err)
	requireReset(t, conn)
}

// After Close, the child must be able to bind the port even without SO_REUSEADDR.
func TestClosedForwarderFreesItsPortDespiteOpenConnections(t *testing.T) {
	port := app(t, holder+":0", func(conn *net.TCPConn) {
		defer conn.Close()
		for data := make([]byte, 1<<16); ; {
			if _, err := conn.Write(data); err != nil {
				return
			}
		}
	})
	f := standby(t, Config{Ports: []int{port, 0}})
	f.SetTarget(holder)
	var streams sync.WaitGroup
	for range 10 {
		conn := connect(t, port)
		_, err := io.ReadFull(conn, make([]byte, 1<<20))
		require.NoError(t, err)
		streams.Go(func() { _, _ = io.Copy(io.Discard, conn) })
	}
	f.SetTarget("")
	held := connect(t, port)
	eventually(t, func() bool { return f.Stats().Waiting == 1 })
	f.Close()

	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	require.NoError(t, err)
	defer syscall.Close(fd)
	require.NoError(t, syscall.Bind(fd, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}))
	requireReset(t, held)
	streams.Wait()
	assert.Zero(t, f.Stats().Open+f.Stats().Waiting)
}

func TestForwarderOpensAllItsPortsOrNone(t *testing.T) {
	taken := app(t, "127.0.0.1:0", echo)
	free := app(t, holder+":0", echo)
	f := closed(Config{Ports: []int{free, taken}})
	err := f.Open()
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	require.ErrorContains(t, err, "port "+strconv.Itoa(taken))
	app(t, "127.0.0.1:"+strconv.Itoa(free), echo)
	assert.Equal(t, []int{free, taken}, f.Ports())
	f.Close()
}

func TestClosedForwarderCanBeOpenedAgain(t *testing.T) {
	port := app(t, holder+":0", answer("holder"))
	f := standby(t, Config{Ports: []int{port}})
	f.SetTarget(holder)
	for range 3 {
		require.NoError(t, f.Open(), "Open must do nothing while open")
		assert.Equal(t, "holder read x", ask(t, connect(t, port), "x"))
		f.Close()
		f.Close()
		_, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port))
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
		require.NoError(t, f.Open())
	}
}

func TestForwarderTargetsOnlyAddressesOfOtherPods(t *testing.T) {
	f := New(Config{Self: []string{"203.0.113.7", "2001:db8::7", "not an address"}})
	own := []string{"203.0.113.7", "::ffff:203.0.113.7", "2001:db8::7", "127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::", "", "host.example", "169.254.169.254", "224.0.0.1", "fe80::1", "fe80::1%eth0"}
	interfaces, err := net.InterfaceAddrs()
	require.NoError(t, err)
	for _, network := range interfaces {
		own = append(own, network.(*net.IPNet).IP.String())
	}
	for _, ip := range own {
		f.SetTarget("203.0.113.8")
		r := f.target()
		require.NotNil(t, r)
		f.SetTarget(ip)
		r = f.target()
		require.Nil(t, r, "%q", ip)
	}
}

// The text comes from the Lease. By a metadata service, a client could get the rights of the node.
func TestForwarderNeverDialsAMetadataService(t *testing.T) {
	for name, ip := range map[string]string{
		"link-local": "169.254.169.254", "AWS by IPv6": "fd00:ec2::254", "Google by IPv6": "fd20:ce::254", "Azure": "168.63.129.16",
		"Alibaba": "100.100.100.200", "Oracle": "192.0.0.192", "mapped": "::ffff:169.254.169.254", "compatible": "::169.254.169.254",
		"NAT64": "64:ff9b::a9fe:a9fe", "6to4": "2002:a9fe:a9fe::1", "this network": "0.1.2.3", "broadcast": "255.255.255.255", "site-local": "fec0::1",
	} {
		f := New(Config{Ports: []int{80}})
		f.SetTarget(ip)
		assert.Nil(t, f.target(), "%s: %s", name, ip)
		assert.ErrorIs(t, f.Reachable(t.Context(), ip), errNoTarget, "%s: %s", name, ip)
	}
	for name, ip := range map[string]string{
		"private": "10.244.1.17", "shared": "100.64.0.7", "beside Alibaba's": "100.100.100.201", "class E": "240.10.0.7",
		"unique local": "fd00:10:244::7", "public by IPv6": "2001:db8::7",
	} {
		f := New(Config{})
		f.SetTarget(ip)
		assert.NotNil(t, f.target(), "%s: %s", name, ip)
	}
}

func TestReachableDialsNoAddressOfItsOwnPod(t *testing.T) {
	served := app(t, "127.0.0.1:0", echo)
	f := New(Config{Ports: []int{served}, Self: []string{holder}})
	assert.ErrorIs(t, f.Reachable(t.Context(), "127.0.0.1"), errNoTarget)
	assert.ErrorIs(t, f.Reachable(t.Context(), holder), errNoTarget)
}

func TestHolderIsReachableOnlyIfEveryPortAnswers(t *testing.T) {
	served := app(t, holder+":0", echo)
	unserved := app(t, otherHolder+":0", echo) // only the other holder listens on this port
	f := closed(Config{Ports: []int{served, unserved}})
	require.NoError(t, f.Reachable(t.Context(), holder), "a refused connection is an answer")
	require.ErrorIs(t, f.Reachable(t.Context(), ""), errNoTarget)

	silence, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	require.ErrorContains(t, f.Reachable(silence, holder), "port "+strconv.Itoa(served))
}

func TestForwarderReportsASilentTarget(t *testing.T) {
	const unroutable = "255.255.255.255" // the kernel refuses this address, and sends nothing
	for name, c := range map[string]struct {
		target string
		wait   time.Duration // on a busy machine, even a refusal takes a while
		want   bool
	}{"no path": {unroutable, 50 * time.Millisecond, true}, "a refused connection": {holder, time.Second, false}} {
		t.Run(name, func(t *testing.T) {
			f := standby(t, Config{Ports: []int{0}, Wait: c.wait})
			if f.SetTarget(c.target); c.target == unroutable { // SetTarget refuses this address
				f.mu.Lock()
				f.lacking, f.route = false, newRoute(netip.MustParseAddr(unroutable))
				f.mu.Unlock()
			}
			for range 3 {
				requireReset(t, connect(t, f.Ports()[0]))
			}
			select {
			case address := <-f.Unanswered():
				assert.True(t, c.want)
				assert.Equal(t, c.target, address)
			default:
				assert.False(t, c.want)
			}
		})
	}
}

func TestThousandForwardedConnectionsLeakNoGoroutine(t *testing.T) {
	before := runtime.NumGoroutine()
	port := app(t, holder+":0", echo)
	f := standby(t, Config{Ports: []int{port}})
	f.SetTarget(holder)
	var clients sync.WaitGroup
	for i := range 50 {
		clients.Go(func() {
			for range 20 {
				conn, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port))
				if !assert.NoError(t, err) {
					return
				}
				_, _ = io.WriteString(conn, "x")
				_, err = io.ReadFull(conn, make([]byte, 1))
				assert.NoError(t, err)
				if i%2 == 0 {
					reset(conn.(*net.TCPConn))
				} else {
					conn.Close()
				}
			}
		})
	}
	clients.Wait()
	assert.EqualValues(t, 1000, f.Stats().Forwarded)
	// Three goroutines are left: the accept loops of the application and of the
	// forwarder, and the goroutine that the function "eventually" starts for its check.
	eventually(t, func() bool { return f.Stats().Open == 0 && runtime.NumGoroutine() <= before+3 })
	f.Close()
	eventually(t, func() bool { return runtime.NumGoroutine() <= before+2 })
}

// The target, the state of the forwarder and the connections change concurrently. No call may
// hang, and the race detector must find no race.
func TestConcurrentUseOfForwarderNeitherHangsNorRaces(t *testing.T) {
	port := app(t, holder+":0", echo)
	app(t, otherHolder+":"+strconv.Itoa(port), echo)
	f := standby(t, Config{Ports: []int{port}, Wait: 100 * time.Millisecond})
	done := make(chan struct{})
	var clients, changers sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for range 50 {
				conn, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port))
				if err != nil {
					continue
				}
				_, _ = io.WriteString(conn, "x")
				_, _ = io.ReadFull(conn, make([]byte, 1))
				conn.Close()
			}
		})
	}
	changers.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			f.SetTarget([]string{holder, otherHolder, ""}[i%3])
			if i%7 == 0 {
				f.Close()
				assert.NoError(t, f.Open())
			}
			_ = f.Reachable(t.Context(), holder)
		}
	})
	clients.Wait()
	close(done)
	changers.Wait()
	f.Close()
	assert.Zero(t, f.Stats().Open+f.Stats().Waiting)
}
