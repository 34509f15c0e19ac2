// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
)

// route is one target and its connections.
type route struct {
	addr netip.Addr
	// ctx ends when the connections of the route must end.
	ctx    context.Context
	cancel context.CancelFunc
}

// newRoute returns a route without connections.
func newRoute(addr netip.Addr) *route {
	r := &route{addr: addr}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// relay is one client's connection and the one to the holder's application.
type relay struct {
	client, backend *net.TCPConn
	route           *route
	// running counts the directions that have not ended. over is called after the last.
	running atomic.Int32
	over    func(*relay)
}

// start copies in both directions until both have ended, or one has failed. Each
// direction is a goroutine of its own, which calls few functions. Most of an idle
// connection's memory is the two stacks, and a deeper stack would be twice as large.
func (r *relay) start() {
	r.running.Store(2)
	go r.carry(r.client, r.backend)
	go r.carry(r.backend, r.client)
}

// carry copies one direction, and passes on its end or its failure.
func (r *relay) carry(to, from *net.TCPConn) {
	if move(to, from) != nil {
		r.cut()
	} else {
		// If the peer is gone, the other direction reports the error.
		_ = to.CloseWrite()
	}
	if r.running.Add(-1) == 0 {
		r.client.Close()
		r.backend.Close()
		r.over(r)
	}
}

// cut ends both directions with a failure.
func (r *relay) cut() {
	reset(r.client)
	reset(r.backend)
}

// reset closes a connection so that the peer reads an error, not an end. The port
// gets no TIME_WAIT.
func reset(conn *net.TCPConn) {
	_ = conn.SetLinger(0)
	conn.Close()
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

// cut cuts all relays, or those of one route.
func (all *relays) cut(only *route) {
	all.mu.Lock()
	defer all.mu.Unlock()
	for r := range all.all {
		if only == nil || r.route == only {
			r.cut()
		}
	}
}
