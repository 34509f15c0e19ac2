// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package crowd

import (
	"net"
	"net/http"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
)

// wire is a connection from a peer, without data.
type wire struct {
	net.Conn
	peer   string
	closed bool
}

func (w *wire) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(w.peer), Port: 1} }

func (w *wire) Close() error {
	w.closed = true
	return nil
}

// arrival is the arrival of a connection, and how far its request has come afterwards.
type arrival struct {
	peer  string
	state http.ConnState
}

func TestCrowdClosesAConnectionOfTheLargestPeer(t *testing.T) {
	const greets, asks, waits = http.StateNew, http.StateActive, http.StateIdle
	for name, c := range map[string]struct {
		refuses  bool
		arrivals []arrival
		closed   []int
	}{
		"within the bound":                              {false, []arrival{{"10.0.0.1", asks}, {"10.0.0.1", asks}, {"10.0.0.1", asks}, {"10.0.0.1", asks}}, nil},
		"the peer with most connections":                {false, []arrival{{"10.0.0.1", waits}, {"10.0.0.2", waits}, {"10.0.0.2", waits}, {"10.0.0.1", asks}, {"10.0.0.2", waits}}, []int{1}},
		"an idle connection before a request":           {false, []arrival{{"10.0.0.1", asks}, {"10.0.0.1", waits}, {"10.0.0.1", asks}, {"10.0.0.1", waits}, {"10.0.0.1", asks}}, []int{1}},
		"a silent connection before an idle one":        {false, []arrival{{"10.0.0.1", waits}, {"10.0.0.1", greets}, {"10.0.0.1", waits}, {"10.0.0.1", asks}, {"10.0.0.1", asks}}, []int{1}},
		"the newest, if all others have requests":       {false, []arrival{{"10.0.0.1", asks}, {"10.0.0.1", asks}, {"10.0.0.1", asks}, {"10.0.0.1", asks}, {"10.0.0.1", asks}}, []int{4}},
		"silent connections get half of the places":     {false, []arrival{{"10.0.0.1", waits}, {"10.0.0.1", waits}, {"10.0.0.2", greets}, {"10.0.0.3", greets}, {"10.0.0.4", greets}}, []int{2}},
		"a new peer beside a crowd of silent ones":      {false, []arrival{{"10.0.0.2", greets}, {"10.0.0.2", greets}, {"10.0.0.2", greets}, {"10.0.0.2", greets}, {"10.0.0.1", asks}}, []int{0}},
		"a crowd that refuses closes the newest":        {true, []arrival{{"10.0.0.1", waits}, {"10.0.0.1", greets}, {"10.0.0.1", waits}, {"10.0.0.1", waits}, {"10.0.0.2", asks}}, []int{4}},
		"a crowd that refuses keeps silent connections": {true, []arrival{{"10.0.0.1", greets}, {"10.0.0.1", greets}, {"10.0.0.1", greets}, {"10.0.0.1", greets}, {"10.0.0.2", asks}, {"10.0.0.3", asks}}, []int{4, 5}},
	} {
		t.Run(name, func(t *testing.T) {
			crowd := &Crowd{Most: 4, Refuses: c.refuses}
			var wires []*wire
			for _, a := range c.arrivals {
				w := &wire{peer: a.peer}
				wires = append(wires, w)
				g := crowd.enter(w)
				crowd.follow(g, a.state)
			}
			var closed []int
			for i, w := range wires {
				if w.closed {
					closed = append(closed, i)
				}
			}
			assert.Equal(t, c.closed, closed)
			assert.Len(t, crowd.guests, len(c.arrivals)-len(c.closed))
			for _, g := range slices.Clone(crowd.guests) {
				assert.NoError(t, g.Close())
				assert.NoError(t, g.Close(), "a second close changes no count")
			}
			assert.Empty(t, crowd.guests)
			assert.Empty(t, crowd.peers)
			assert.Zero(t, crowd.greeting)
		})
	}
}

// A server closes a connection after the crowd has closed it, and reports states of it.
func TestClosedGuestChangesNoCounts(t *testing.T) {
	crowd := &Crowd{Most: 1}
	first := crowd.enter(&wire{peer: "10.0.0.1"})
	second := crowd.enter(&wire{peer: "10.0.0.2"})
	assert.NotContains(t, crowd.guests, first)
	crowd.follow(first, http.StateActive)
	assert.Equal(t, 1, crowd.greeting)
	crowd.follow(second, http.StateActive)
	assert.Zero(t, crowd.greeting)
	crowd.End()
	assert.Empty(t, crowd.guests)
}
