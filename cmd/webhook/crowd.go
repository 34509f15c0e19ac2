// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"net"
	"net/http"
	"slices"
	"sync"
)

// crowd is a listener with a bounded number of connections. If a new connection exceeds the bound,
// [crowd.worst] selects the connection to close. So no peer keeps the API server out.
type crowd struct {
	net.Listener
	max int

	mu sync.Mutex
	// guests are the open connections, in the order of their arrival.
	guests []*guest
	// greeting counts the connections that have not sent the header of a call yet.
	greeting int
	peers    map[string]*peer
}

// peer counts the connections from one address.
type peer struct{ all, greeting int }

// guest is one connection.
type guest struct {
	net.Conn
	crowd *crowd
	from  *peer
	// greeting is true until the handshake, and the header of the first call, are over.
	greeting bool
	// served is true while a call of this guest has no answer yet.
	served bool
}

func newCrowd(listener net.Listener, limit int) *crowd {
	return &crowd{Listener: listener, max: limit, peers: map[string]*peer{}}
}

// Accept implements [net.Listener].
func (c *crowd) Accept() (net.Conn, error) {
	connection, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return c.enter(connection), nil
}

// enter adds a connection. Above the bound, enter closes the connection that [crowd.worst]
// selects, perhaps the new one.
func (c *crowd) enter(connection net.Conn) *guest {
	c.mu.Lock()
	defer c.mu.Unlock()
	name := source(connection)
	from, known := c.peers[name]
	if !known {
		from = new(peer)
		c.peers[name] = from
	}
	g := &guest{Conn: connection, crowd: c, from: from, greeting: true}
	c.guests = append(c.guests, g)
	from.all++
	from.greeting++
	c.greeting++
	if len(c.guests) > c.max {
		worst := c.worst()
		_ = worst.Conn.Close()
		c.remove(worst)
	}
	return g
}

// worst returns the guest whose connection has to be closed. A guest is greeting until the TLS
// handshake is over and the header of the first call has arrived. Guests that are greeting get at
// most half of the places. If the server requires client certificates, a guest without such a
// certificate never ends its greeting.
func (c *crowd) worst() *guest {
	crowded := c.greeting > (c.max+1)/2
	return slices.MaxFunc(c.guests, func(a, b *guest) int {
		switch {
		case crowded && a.greeting != b.greeting:
			return first(a.greeting)
		case crowded && a.from.greeting != b.from.greeting:
			return a.from.greeting - b.from.greeting
		case !crowded && a.from.all != b.from.all:
			return a.from.all - b.from.all
		}
		return c.rank(a) - c.rank(b) // among equal guests, the oldest one loses its connection
	})
}

// rank orders guests whose peers have equal counts of connections. The guest with the highest rank
// loses its connection. All guests except the newest one count as older. An older guest that is
// still greeting has the highest rank. Next is an older guest without a call in flight, then the
// newest guest. An older guest with a call in flight has the lowest rank.
func (c *crowd) rank(g *guest) int {
	switch {
	case g == c.guests[len(c.guests)-1]:
		return 1
	case g.greeting:
		return 3
	case !g.served:
		return 2
	}
	return 0
}

// first returns the result of a comparison of guest a with guest b. The result is 1 if the argument
// "leaves" says that guest a must leave first. Otherwise, the result is -1, and guest b must leave
// first.
func first(leaves bool) int {
	if leaves {
		return 1
	}
	return -1
}

// remove removes a guest from all counts, if the guest is still counted. The caller holds
// the mutex.
func (c *crowd) remove(g *guest) {
	i := slices.Index(c.guests, g)
	if i < 0 {
		return
	}
	c.guests = slices.Delete(c.guests, i, i+1)
	c.greeted(g)
	if g.from.all--; g.from.all == 0 {
		delete(c.peers, source(g.Conn))
	}
}

// greeted notes the end of a guest's greeting. The caller holds the mutex.
func (c *crowd) greeted(g *guest) {
	if g.greeting {
		g.greeting = false
		g.from.greeting--
		c.greeting--
	}
}

// follow notes the state that the HTTP server gives to a connection. A connection becomes
// active when the server has read a call's header, after the handshake.
func (c *crowd) follow(connection net.Conn, state http.ConnState) {
	if secure, ok := connection.(*tls.Conn); ok {
		connection = secure.NetConn()
	}
	g, ok := connection.(*guest)
	if !ok || state != http.StateActive && state != http.StateIdle {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.greeted(g)
	g.served = state == http.StateActive
}

// Close implements [net.Conn].
func (g *guest) Close() error {
	g.crowd.mu.Lock()
	g.crowd.remove(g)
	g.crowd.mu.Unlock()
	return g.Conn.Close()
}

// source returns the peer's address without its port.
func source(connection net.Conn) string {
	host, _, err := net.SplitHostPort(connection.RemoteAddr().String())
	if err != nil {
		return ""
	}
	return host
}
