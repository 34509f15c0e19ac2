// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net"
	"net/http"
	"slices"
	"sync"
)

// mostConnections bounds the connections to one of the agent's servers. Any pod of the cluster
// can open connections, and each connection takes memory of the container, whose limit is 64 MiB.
// The kubelet and scrapers need one connection for each request under way.
const mostConnections = 64

// crowd bounds the connections of a server. If a new connection exceeds the bound, the server
// closes a connection of the peer with the most connections, unless the field "refuses" is set. So
// at the port of the probes, no pod can block the kubelet.
type crowd struct {
	// The field "most" is the largest number of connections. If the field "refuses" is set, the
	// server closes a new connection beyond that number, instead of an older connection.
	most    int
	refuses bool
	mu      sync.Mutex
	// guests are the open connections, in the order of their arrival.
	guests []*guest
}

// guest is one open connection. A handler may take the connection from package http, so only Close
// ends the guest.
type guest struct {
	net.Conn
	of   *crowd
	from string
	// served reports that the server is answering a request on the connection.
	served bool
}

// Close closes the connection, and makes room for another guest.
func (g *guest) Close() error {
	g.of.leave(g)
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

// door is a listener whose connections are guests of a crowd.
type door struct {
	net.Listener
	to *crowd
}

// Accept returns the next guest. Beyond the bound, the guest may already be closed.
func (d door) Accept() (net.Conn, error) {
	conn, err := d.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return d.to.enter(conn), nil
}

// The type "of" is the type of a key in the context of each request. The value for that key is the
// guest whose connection the request uses.
type of struct{}

// attach makes the server tell the crowd which guests have an answer under way. The server's
// listener must be a [door] of the crowd.
func (c *crowd) attach(server *http.Server) {
	handler := server.Handler
	server.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		return context.WithValue(ctx, of{}, conn)
	}
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g := r.Context().Value(of{}).(*guest)
		c.serve(g, true)
		defer c.serve(g, false)
		handler.ServeHTTP(w, r)
	})
}

// enter adds a connection. If the bound is exceeded, enter closes a connection: the new one if the
// field "refuses" is set, and otherwise the one that [crowd.worst] returns.
func (c *crowd) enter(conn net.Conn) *guest {
	g := &guest{Conn: conn, of: c, from: source(conn)}
	if surplus := c.add(g); surplus != nil {
		surplus.Close()
	}
	return g
}

// add adds the guest, and returns the guest that is now too many, if any.
func (c *crowd) add(g *guest) *guest {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.guests = append(c.guests, g)
	switch {
	case len(c.guests) <= c.most:
		return nil
	case c.refuses:
		return g
	}
	return c.worst()
}

// leave removes the guest.
func (c *crowd) leave(g *guest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.guests = slices.DeleteFunc(c.guests, func(other *guest) bool { return other == g })
}

// end closes the connections of all guests. The method Close of the server closes only those
// connections that no handler has taken from package http.
func (c *crowd) end() {
	c.mu.Lock()
	all := slices.Clone(c.guests)
	c.mu.Unlock()
	for _, g := range all {
		g.Close()
	}
}

// worst returns the oldest idle guest of the peer with the most connections. If that peer has
// no idle guest, worst returns its oldest guest.
func (c *crowd) worst() *guest {
	count := map[string]int{}
	for _, g := range c.guests {
		count[g.from]++
	}
	return slices.MaxFunc(c.guests, func(a, b *guest) int {
		switch {
		case count[a.from] != count[b.from]:
			return count[a.from] - count[b.from]
		case a.served != b.served && b.served:
			return 1
		case a.served != b.served:
			return -1
		}
		return 0
	})
}

// serve stores whether the server is answering a request of the guest.
func (c *crowd) serve(g *guest, served bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g.served = served
}

// source returns the peer's address without its port. All peers of a Unix socket count as the
// same peer.
func source(conn net.Conn) string {
	host, _, err := net.SplitHostPort(conn.RemoteAddr().String())
	if err != nil {
		return ""
	}
	return host
}
