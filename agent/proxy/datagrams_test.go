// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// responder runs an application that answers each datagram with its name and the datagram. For the
// port zero, responder chooses one that is free at all loopback addresses.
func responder(t testing.TB, name, host string, port int) int {
	t.Helper()
	var conn net.PacketConn
	for err := errors.New("none yet"); err != nil; {
		at := port
		if at == 0 {
			at = 12_000 + rand.IntN(16_000)
			everywhere, busy := net.ListenPacket("udp4", ":"+strconv.Itoa(at))
			if busy != nil {
				continue
			}
			everywhere.Close()
		}
		conn, err = net.ListenPacket("udp", net.JoinHostPort(host, strconv.Itoa(at)))
		require.False(t, port != 0 && err != nil, "%v", err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		buffer := make([]byte, 64<<10)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(append([]byte(name+" read "), buffer[:n]...), from)
		}
	})
	t.Cleanup(func() {
		conn.Close()
		running.Wait()
	})
	return conn.LocalAddr().(*net.UDPAddr).Port
}

func dialPackets(t testing.TB, address string, port int) net.Conn {
	t.Helper()
	conn, err := net.Dial("udp", net.JoinHostPort(address, strconv.Itoa(port)))
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

// query sends a datagram, and returns the answer.
func query(t testing.TB, conn net.Conn, text string) string {
	t.Helper()
	_, err := conn.Write([]byte(text))
	require.NoError(t, err)
	return reply(t, conn, soon)
}

// reply returns the next answer; an empty text if none comes within the time.
func reply(t testing.TB, conn net.Conn, within time.Duration) string {
	t.Helper()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(within)))
	buffer := make([]byte, 64<<10)
	n, err := conn.Read(buffer)
	if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
		return ""
	}
	require.NoError(t, err)
	return string(buffer[:n])
}

// count returns the number of flows, as seen by a reader of all goroutines.
func (all *flows) count() int {
	all.mu.Lock()
	defer all.mu.Unlock()
	return len(all.all)
}

func TestDatagramsReachTheHolderAndItsAnswersTheirClients(t *testing.T) {
	port := responder(t, "holder", holder, 0)
	f := standby(t, Config{Datagrams: []int{port}})
	f.SetTarget(holder)
	one, other := dialPackets(t, "127.0.0.1", port), dialPackets(t, "127.0.0.1", port)
	for range 3 {
		assert.Equal(t, "holder read 1", query(t, one, "1"))
		assert.Equal(t, "holder read 2", query(t, other, "2"))
	}
	assert.Equal(t, 2, f.session.flows.count(), "each client has one flow")
	large := string(make([]byte, 9000))
	assert.Equal(t, "holder read "+large, query(t, one, large))
}

func TestPortWithTCPAndUDPForwardsBoth(t *testing.T) {
	port := responder(t, "datagrams", holder, 0)
	app(t, net.JoinHostPort(holder, strconv.Itoa(port)), answer("streams"))
	f := standby(t, Config{Ports: []int{port}, Datagrams: []int{port}})
	f.SetTarget(holder)
	assert.Equal(t, "datagrams read x", query(t, dialPackets(t, "127.0.0.1", port), "x"))
	assert.Equal(t, "streams read x", ask(t, connect(t, port), "x"))
}

func TestDatagramsWaitForAHolder(t *testing.T) {
	port := responder(t, "first", holder, 0)
	responder(t, "second", otherHolder, port)
	f := standby(t, Config{Datagrams: []int{port}})
	client, early := dialPackets(t, "127.0.0.1", port), dialPackets(t, "127.0.0.1", port)
	for _, c := range []net.Conn{early, client} {
		_, err := c.Write([]byte("early"))
		require.NoError(t, err)
	}
	f.SetTarget(holder)
	assert.Equal(t, "first read early", reply(t, early, soon))
	assert.Equal(t, "first read early", reply(t, client, soon))
	f.SetTarget("")
	_, err := client.Write([]byte("during"))
	require.NoError(t, err)
	f.SetTarget(otherHolder)
	assert.Equal(t, "second read during", reply(t, client, soon))
	assert.Equal(t, "second read after", query(t, early, "after"))
}

// While the holder's port is closed, the kernel answers each datagram by an ICMP message. Neither the
// port nor the client's flow ends by it.
func TestClosedPortOfHolderEndsNoFlow(t *testing.T) {
	port := responder(t, "other", otherHolder, 0) // only reserves the port
	f := standby(t, Config{Datagrams: []int{port}})
	f.SetTarget(holder)
	client := dialPackets(t, "127.0.0.1", port)
	for range 3 {
		_, err := client.Write([]byte("lost"))
		require.NoError(t, err)
		assert.Empty(t, reply(t, client, 10*time.Millisecond))
	}
	responder(t, "holder", holder, port)
	assert.Equal(t, "holder read x", query(t, client, "x"))
	assert.Equal(t, 1, f.session.flows.count())
}

func TestCloseFreesUDPPorts(t *testing.T) {
	port := responder(t, "holder", holder, 0)
	f := closed(Config{Ports: []int{port}, Datagrams: []int{port}})
	f.SetTarget(holder)
	for range 50 {
		require.NoError(t, f.Open())
		client := dialPackets(t, "127.0.0.1", port)
		query(t, client, "x")
		_, err := client.Write([]byte("in flight"))
		require.NoError(t, err)
		s := f.session
		f.Close()
		child, err := net.ListenPacket("udp", "127.0.0.1:"+strconv.Itoa(port))
		require.NoError(t, err, "the application binds the port")
		child.Close()
		assert.Zero(t, s.flows.count())
	}
}

func TestUDPPortInUseFailsOpen(t *testing.T) {
	port := responder(t, "application", "127.0.0.1", 0)
	f := closed(Config{Ports: []int{port}, Datagrams: []int{port}})
	require.ErrorIs(t, f.Open(), syscall.EADDRINUSE)
	stream, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
	require.NoError(t, err, "a failed Open keeps no port")
	stream.Close()
}

// A standby gets 1,000 clients that send one query each, as resolvers do: more than it keeps flows.
func TestNoQueryIsLostBeyondTheBoundOfFlows(t *testing.T) {
	const most = 64
	port := responder(t, "holder", holder, 0)
	f := standby(t, Config{Datagrams: []int{port}, MaxFlows: most})
	f.SetTarget(holder)
	for i := range 1000 {
		client := dialPackets(t, "127.0.0.1", port)
		assert.Equal(t, fmt.Sprint("holder read ", i), query(t, client, strconv.Itoa(i)))
		assert.LessOrEqual(t, f.session.flows.count(), most)
		client.Close()
	}
	lasting := dialPackets(t, "127.0.0.1", port)
	query(t, lasting, "x")
	for range 2 * most {
		query(t, dialPackets(t, "127.0.0.1", port), "x")
		query(t, lasting, "x")
	}
	_, kept := f.session.flows.ports()[lasting.LocalAddr().(*net.UDPAddr).Port]
	assert.True(t, kept, "the flow that was idle for longest ends first")
}

// ports returns the ports of all clients that have a flow.
func (all *flows) ports() map[int]struct{} {
	all.mu.Lock()
	defer all.mu.Unlock()
	ports := map[int]struct{}{}
	for key := range all.all {
		ports[int(key.client.Port())] = struct{}{}
	}
	return ports
}

func TestIdleFlowsEnd(t *testing.T) {
	port := responder(t, "holder", holder, 0)
	f := standby(t, Config{Datagrams: []int{port}, FlowIdle: 20 * time.Millisecond})
	f.SetTarget(holder)
	client := dialPackets(t, "127.0.0.1", port)
	query(t, client, "x")
	eventually(t, func() bool { return f.session.flows.count() == 0 })
	assert.Equal(t, "holder read again", query(t, client, "again"))
}

func TestLingerEndsOnceNoDatagramArrives(t *testing.T) {
	port := responder(t, "holder", holder, 0)
	f := standby(t, Config{Datagrams: []int{port}})
	f.SetTarget(holder)
	client := dialPackets(t, "127.0.0.1", port)
	const delay = 300 * time.Millisecond
	left := f.Linger(delay)
	for end := time.Now().Add(2 * delay); time.Now().Before(end); {
		assert.Equal(t, "holder read x", query(t, client, "x"))
	}
	select {
	case <-left:
	case <-time.After(soon):
		assert.Fail(t, "an idle flow does not hold a deleted standby back")
	}
}

// A pod on its node's network has several addresses. Most clients, such as resolvers, ignore an answer
// from another address than the one that they have asked.
func TestAnswerComesFromTheAddressedAddress(t *testing.T) {
	for _, address := range []string{"127.0.0.1", "127.0.0.5", "::1"} {
		everywhere, err := listenPackets(t.Context(), ":0")
		require.NoError(t, err)
		defer everywhere.Close()
		client := dialPackets(t, address, everywhere.LocalAddr().(*net.UDPAddr).Port) // drops answers of others
		_, err = client.Write([]byte("x"))
		require.NoError(t, err)
		raw, err := everywhere.SyscallConn()
		require.NoError(t, err)
		p, err := read(raw)
		require.NoError(t, err)
		assert.Equal(t, address, p.at.Unmap().String())
		_, _, err = everywhere.WriteMsgUDPAddrPort([]byte("y"), sourceOf(p.at), p.from)
		require.NoError(t, err)
		assert.Equal(t, "y", reply(t, client, soon), address)
	}
}

// A spare port may belong to another process of the pod, which then serves it.
func TestForwarderLeavesOutSparePortInUse(t *testing.T) {
	port := app(t, holder+":0", answer("holder"))
	sidecar, err := listen("127.0.0.1:0")
	require.NoError(t, err)
	defer sidecar.Close()
	f := standby(t, Config{Spare: []int{sidecar.Addr().(*net.TCPAddr).Port, port}})
	f.SetTarget(holder)
	assert.Equal(t, "holder read x", ask(t, connect(t, port), "x"))
	assert.Equal(t, []int{port}, f.Ports())
}

// Each query comes from a new client, as a resolver's query does, so it needs a flow of its own.
func BenchmarkQueryInAFlowOfItsOwn(b *testing.B) {
	port := responder(b, "holder", holder, 0)
	f := closed(Config{Datagrams: []int{port}})
	require.NoError(b, f.Open())
	defer f.Close()
	f.SetTarget(holder)
	for b.Loop() {
		client, err := net.Dial("udp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		require.NoError(b, err)
		query(b, client, "x")
		client.Close()
	}
}
