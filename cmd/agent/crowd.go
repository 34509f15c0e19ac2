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

// guest is one open connection.
type guest struct {
	conn net.Conn
	from string
	// served reports that the server is answering a request on the connection.
	served bool
}

// The type "of" is the type of a key in the context of each request. The value for that key is the
// guest whose connection the request uses.
type of struct{}

// attach makes each connection of the server a guest, and so bounds their number.
func (c *crowd) attach(server *http.Server) {
	handler := server.Handler
	server.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		return context.WithValue(ctx, of{}, c.find(conn))
	}
	server.ConnState = func(conn net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			c.enter(conn)
		case http.StateClosed, http.StateHijacked:
			c.leave(conn)
		case http.StateActive, http.StateIdle:
		}
	}
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g, _ := r.Context().Value(of{}).(*guest)
		c.serve(g, true)
		defer c.serve(g, false)
		handler.ServeHTTP(w, r)
	})
}

// enter adds a connection. If the bound is exceeded, enter closes a connection: the new one if the
// field "refuses" is set, and otherwise the one that [crowd.worst] returns.
func (c *crowd) enter(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.guests = append(c.guests, &guest{conn: conn, from: source(conn)})
	if len(c.guests) <= c.most {
		return
	}
	worst := c.guests[len(c.guests)-1]
	if !c.refuses {
		worst = c.worst()
	}
	worst.conn.Close()
	c.guests = slices.DeleteFunc(c.guests, func(g *guest) bool { return g == worst })
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

func (c *crowd) leave(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.guests = slices.DeleteFunc(c.guests, func(g *guest) bool { return g.conn == conn })
}

func (c *crowd) find(conn net.Conn) *guest {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.guests, func(g *guest) bool { return g.conn == conn })
	if i < 0 {
		return nil
	}
	return c.guests[i]
}

// serve stores whether the server is answering a request of the guest. If the method "enter"
// has already closed the guest's connection, serve has no effect.
func (c *crowd) serve(g *guest, served bool) {
	if g == nil {
		return
	}
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
