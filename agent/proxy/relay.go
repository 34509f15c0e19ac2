// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// route is one target and its connections.
type route struct {
	addr netip.Addr
	// ctx ends when the connections of the route must end.
	ctx    context.Context
	cancel context.CancelFunc

	mu    sync.Mutex
	doors map[int]*door
}

// newRoute returns a route without connections.
func newRoute(addr netip.Addr) *route {
	r := &route{addr: addr, doors: map[int]*door{}}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// relay is one client's connection, and the connection to the holder's application.
type relay struct {
	client, backend end
	route           *route
	// running counts the directions that have not ended. When both have ended, the relay calls the
	// function in the field "over".
	running atomic.Int32
	over    func(*relay)
}

// start copies in both directions until both have ended, or one has failed. Each
// direction has a goroutine of its own, with few nested calls. Most of an idle
// connection's memory is the two stacks, and a deeper stack would be twice as large.
func (r *relay) start() {
	r.running.Store(2)
	go r.copy(&r.client, &r.backend)
	go r.copy(&r.backend, &r.client)
}

// copy copies one direction, and then passes the sender's end of file on to the receiver. If the
// direction fails, copy resets both connections.
func (r *relay) copy(to, from *end) {
	if move(to.TCPConn, from.TCPConn) != nil || from.failed() {
		r.cut()
	} else {
		to.finish()
	}
	if r.running.Add(-1) == 0 {
		r.client.Close()
		r.backend.Close()
		r.over(r)
	}
}

// cut resets both connections, so each peer reads an error.
func (r *relay) cut() {
	reset(r.client.TCPConn)
	reset(r.backend.TCPConn)
}

// reset closes a connection so that the peer reads an error, not an end of file. The port gets no
// TIME_WAIT.
func reset(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	conn.Close()
}

// end is one of the two connections of a relay.
type end struct {
	*net.TCPConn
	// finished reports that the relay has sent an end of file over this connection.
	finished atomic.Bool
}

// finish sends an end of file. If the peer is gone, the other direction reports the error.
func (e *end) finish() {
	e.finished.Store(true)
	_ = e.CloseWrite()
}

// failed reports whether an end of file was in fact a reset. The kernel reports a reset to one
// caller only. If that caller is a write, the next read returns an end of file instead. But the
// method "failed" recognizes the reset: the connection is closed, although this side has not sent
// its end of file.
func (e *end) failed() bool {
	closed := false
	conn, err := e.SyscallConn()
	if err == nil {
		err = conn.Control(func(fd uintptr) {
			info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
			closed = err == nil && info.State == unix.BPF_TCP_CLOSE
		})
	}
	return err != nil || closed && !e.finished.Load()
}

// relays are the relays of a session.
type relays struct {
	mu  sync.Mutex
	all map[*relay]struct{}
}

func (all *relays) add(r *relay) {
	all.mu.Lock()
	defer all.mu.Unlock()
	if all.all == nil {
		all.all = map[*relay]struct{}{}
	}
	all.all[r] = struct{}{}
}

func (all *relays) remove(r *relay) {
	all.mu.Lock()
	defer all.mu.Unlock()
	delete(all.all, r)
}

// cut cuts the relays of the given route. If the route is nil, cut cuts all relays.
func (all *relays) cut(only *route) {
	all.mu.Lock()
	defer all.mu.Unlock()
	for r := range all.all {
		if only == nil || r.route == only {
			r.cut()
		}
	}
}

// door returns the [door] of the port, which all connections of the route share. If no door of
// the port exists yet, the function makes one.
func (r *route) door(port int) *door {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := r.doors[port]
	if d == nil {
		d = &door{}
		r.doors[port] = d
	}
	return d
}
