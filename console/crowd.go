// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"net"
	"net/http"
	"slices"
	"sync"
)

const (
	// maxConnections bounds the connections to the port of the probes. Any pod of the cluster may
	// connect. The kubelet needs one connection for each probe.
	maxConnections = 64
	// maxPageConnections bounds the connections to the port of the page. A browser opens at most
	// six connections, of which each tab keeps one for its stream.
	maxPageConnections = 192
)

// crowd is a listener with a bounded number of connections. Beyond the bound, the listener closes a
// connection of the peer that has the most connections (see the method worst). So a pod with many
// connections does not keep the kubelet out. Connections without a request are closed before a
// stream, so a new connection never ends another person's stream.
type crowd struct {
	net.Listener
	most int

	mu sync.Mutex
	// guests are in the order in which they came.
	guests []*guest
}

// guest is one connection.
type guest struct {
	net.Conn

	crowd *crowd
	from  string
	// served reports that the server is answering a request.
	served bool
}

// Accept implements [net.Listener].
func (c *crowd) Accept() (net.Conn, error) {
	connection, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	from, _, _ := net.SplitHostPort(connection.RemoteAddr().String()) // peers without an address count as one peer
	g := &guest{Conn: connection, crowd: c, from: from}
	c.mu.Lock()
	c.guests = append(c.guests, g)
	worst := c.worst()
	c.mu.Unlock()
	if worst != nil {
		_ = worst.Close()
	}
	return g, nil
}

// worst returns the guest whose connection must be closed. The guest belongs to the peer with the
// most connections, and is the oldest guest without a request in progress. If each guest of this
// peer has a request, worst returns the oldest guest of the peer. The result is nil if the number
// of connections is within the bound. The caller holds the mutex.
//
// All people reach the page from one address, that of the port-forward. A new connection has no
// request yet, so a stream never loses its connection to a new one.
func (c *crowd) worst() *guest {
	if len(c.guests) <= c.most {
		return nil
	}
	count := map[string]int{}
	for _, g := range c.guests {
		count[g.from]++
	}
	return slices.MaxFunc(c.guests, func(a, b *guest) int {
		switch {
		case count[a.from] != count[b.from]:
			return count[a.from] - count[b.from]
		case a.served == b.served:
			return 0
		case b.served:
			return 1
		}
		return -1
	})
}

// follow notes the state that the HTTP server gives to a connection. A connection becomes active
// when the server has read a request's header.
func (c *crowd) follow(connection net.Conn, state http.ConnState) {
	g, ok := connection.(*guest)
	if !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	g.served = state == http.StateActive
}

// Close implements [net.Conn].
func (g *guest) Close() error {
	g.crowd.mu.Lock()
	g.crowd.guests = slices.DeleteFunc(g.crowd.guests, func(other *guest) bool { return other == g })
	g.crowd.mu.Unlock()
	return g.Conn.Close()
}
