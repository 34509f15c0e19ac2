// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"net"
	"slices"
	"sync"
)

// maxConnections bounds the connections to the port of the probes. Any pod of the cluster may connect. The kubelet
// needs one connection for each probe.
const maxConnections = 64

// crowd is a listener with a bounded number of connections. Beyond the bound, the peer with the
// most connections loses its oldest connection, so that no pod keeps the kubelet out.
type crowd struct {
	net.Listener

	mu sync.Mutex
	// guests are in the order in which they came.
	guests []*guest
}

// guest is one connection.
type guest struct {
	net.Conn

	crowd *crowd
	from  string
}

// Accept implements [net.Listener].
func (c *crowd) Accept() (net.Conn, error) {
	connection, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	from, _, _ := net.SplitHostPort(connection.RemoteAddr().String()) // peers without an address count as one peer
	g := &guest{connection, c, from}
	c.mu.Lock()
	c.guests = append(c.guests, g)
	worst := c.worst()
	c.mu.Unlock()
	if worst != nil {
		_ = worst.Close()
	}
	return g, nil
}

// worst returns the guest whose connection must be closed. The result is nil if the number of
// connections is within the bound. The caller holds the mutex.
func (c *crowd) worst() *guest {
	if len(c.guests) <= maxConnections {
		return nil
	}
	count := map[string]int{}
	for _, g := range c.guests {
		count[g.from]++
	}
	return slices.MaxFunc(c.guests, func(a, b *guest) int { return count[a.from] - count[b.from] })
}

// Close implements [net.Conn].
func (g *guest) Close() error {
	g.crowd.mu.Lock()
	g.crowd.guests = slices.DeleteFunc(g.crowd.guests, func(other *guest) bool { return other == g })
	g.crowd.mu.Unlock()
	return g.Conn.Close()
}
