// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package crowd bounds the connections of an HTTP server. Any pod of a cluster can connect to the
// servers of webhook, agent and console.
//
// Guarantee: a server never has more than [Crowd.Most] connections. If a new connection exceeds
// the bound, the crowd closes a connection of the peer with the most connections. So no peer keeps
// the kubelet or the API server out. A crowd that refuses closes the new connection instead.
//
// Not guaranteed: a place for a peer among many peers that all send requests.
package crowd

import (
	"crypto/tls"
	"net"
	"net/http"
	"slices"
	"sync"
)

// Crowd has the connections of one server, or of several servers that share a bound.
type Crowd struct {
	// Most is the largest number of connections. If the field Refuses is set, the crowd closes a new
	// connection beyond that number, instead of an older connection.
	Most    int
	Refuses bool

	mu sync.Mutex
	// guests are the open connections, in the order of their arrival.
	guests []*guest
	// greeting counts the connections that have not sent the header of a request yet.
	greeting int
	peers    map[string]*peer
}

// peer counts the connections from one address.
type peer struct{ all, greeting int }

// guest is one connection. A handler may take the connection from package http, so only Close ends
// the guest.
type guest struct {
	net.Conn
	crowd *Crowd
	// The field "from" is the peer, whose address is "name".
	from *peer
	name string
	// greeting is true until the handshake, and the header of the first request, are over.
	greeting bool
	// served is true while the server answers a request of this guest.
	served bool
}

// Door returns a listener whose connections are guests of the crowd. Beyond the bound, a connection
// of the listener may already be closed.
func (c *Crowd) Door(l net.Listener) net.Listener { return door{l, c} }

type door struct {
	net.Listener
	to *Crowd
}

// Accept implements [net.Listener].
func (d door) Accept() (net.Conn, error) {
	connection, err := d.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return d.to.enter(connection), nil
}

// Attach makes the server tell the crowd which guests have sent a request. The server's listener must
// be a [Crowd.Door] of the crowd, with or without TLS.
func (c *Crowd) Attach(server *http.Server) { server.ConnState = c.follow }

// End closes the connections of all guests. The method Close of a server closes only those
// connections that no handler has taken from package http.
func (c *Crowd) End() {
	c.mu.Lock()
	all := slices.Clone(c.guests)
	c.mu.Unlock()
	for _, g := range all {
		g.Close()
	}
}

// enter adds a connection. Beyond the bound, enter closes the connection that [Crowd.worst] selects.
func (c *Crowd) enter(connection net.Conn) *guest {
	g := &guest{Conn: connection, crowd: c, name: source(connection), greeting: true}
	if surplus := c.add(g); surplus != nil {
		surplus.Close()
	}
	return g
}

// add adds the guest, and returns the guest that is now too many, if any.
func (c *Crowd) add(g *guest) *guest {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.peers == nil {
		c.peers = map[string]*peer{}
	}
	if c.peers[g.name] == nil {
		c.peers[g.name] = new(peer)
	}
	g.from = c.peers[g.name]
	c.guests = append(c.guests, g)
	g.from.all++
	g.from.greeting++
	c.greeting++
	switch {
	case len(c.guests) <= c.Most:
		return nil
	case c.Refuses:
		return g
	}
	return c.worst()
}

// worst returns the guest whose connection has to be closed, perhaps the newest. A guest is greeting
// until the TLS handshake is over and the header of the first request has arrived. Guests that are
// greeting get at most half of the places. If the server requires client certificates, a guest
// without such a certificate never ends its greeting.
func (c *Crowd) worst() *guest {
	crowded := c.greeting > (c.Most+1)/2
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
// still greeting has the highest rank. Next is an older guest without a request in progress, then
// the newest guest. An older guest with a request in progress has the lowest rank.
func (c *Crowd) rank(g *guest) int {
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

// leave removes a guest from all counts, if the guest is still counted.
func (c *Crowd) leave(g *guest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(c.guests, g)
	if i < 0 {
		return
	}
	c.guests = slices.Delete(c.guests, i, i+1)
	c.greeted(g)
	if g.from.all--; g.from.all == 0 {
		delete(c.peers, g.name)
	}
}

// greeted remembers the end of a guest's greeting. The caller holds the mutex.
func (c *Crowd) greeted(g *guest) {
	if g.greeting {
		g.greeting = false
		g.from.greeting--
		c.greeting--
	}
}

// follow remembers the state that the HTTP server gives to a connection. A connection becomes active
// when the server has read a request's header, after the handshake. A connection that a handler takes
// stays active.
func (c *Crowd) follow(connection net.Conn, state http.ConnState) {
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

// Close closes the connection, and makes room for another guest.
func (g *guest) Close() error {
	g.crowd.leave(g)
	return g.Conn.Close()
}

// CloseWrite sends the end of the data. Package http calls CloseWrite before Close, so that a peer
// that is still sending can read the last answer.
func (g *guest) CloseWrite() error {
	if half, ok := g.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// source returns the peer's address without its port. All peers without an address count as the same
// peer, for example those of a Unix socket.
func source(connection net.Conn) string {
	host, _, err := net.SplitHostPort(connection.RemoteAddr().String())
	if err != nil {
		return ""
	}
	return host
}
