// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package forward

import (
	"net"
	"net/netip"
	"strconv"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOnlyOneWaitingConnectionDialsTheHolder(t *testing.T) {
	r := newRoute(netip.Addr{})
	d := r.door(80)
	assert.Same(t, d, r.door(80))
	assert.NotSame(t, d, r.door(81))
	scouts, _ := d.scout()
	require.Same(t, d, scouts)
	for range 2 {
		other, opened := d.scout()
		assert.Nil(t, other)
		assert.False(t, isClosed(opened))
		other.leave() // other does not dial for all, so leave does nothing
		assert.False(t, isClosed(opened))
	}
	_, opened := d.scout()
	scouts.leave()
	assert.True(t, isClosed(opened), "the others try again")
	next, _ := d.scout()
	assert.Same(t, d, next)
}

func TestWaitingConnectionsReachHolderIfFirstOneCloses(t *testing.T) {
	f := standby(t, Config{Ports: []int{0}})
	port := f.Ports()[0]
	f.SetTarget(holder)
	var waiting []*net.TCPConn
	for range 50 {
		waiting = append(waiting, connect(t, port))
	}
	eventually(t, func() bool { return f.Stats().Held == 50 })
	waiting[0].Close()
	app(t, holder+":"+strconv.Itoa(port), answer("holder"))
	for _, conn := range waiting[1:] {
		assert.Equal(t, "holder read x", ask(t, conn, "x"))
	}
}
