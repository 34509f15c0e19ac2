// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package proxy

import (
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOnlyOneWaitingConnectionDialsTheHolder(t *testing.T) {
	r := newRoute(netip.Addr{})
	d := r.door(80)
	assert.Same(t, d, r.door(80))
	assert.NotSame(t, d, r.door(81))
	scouts, _ := d.scout(1)
	require.Same(t, d, scouts)
	for range 2 {
		other, opened := d.scout(1)
		assert.Nil(t, other)
		assert.False(t, isClosed(opened.wait()))
		other.leave() // the door "other" is nil, so "leave" does nothing
		assert.False(t, isClosed(opened.wait()))
	}
	_, opened := d.scout(1)
	scouts.leave()
	assert.True(t, isClosed(opened.wait()), "the others try again")
	next, _ := d.scout(1)
	assert.Same(t, d, next)
}

func TestWaitingConnectionsReachHolderAfterFirstClientDisconnects(t *testing.T) {
	f := standby(t, Config{Ports: []int{0}})
	port := f.Ports()[0]
	f.SetTarget(holder)
	var waiting []*net.TCPConn
	for range 50 {
		waiting = append(waiting, connect(t, port))
	}
	eventually(t, func() bool { return f.Stats().Waiting == 50 })
	waiting[0].Close()
	app(t, holder+":"+strconv.Itoa(port), answer("holder"))
	for _, conn := range waiting[1:] {
		assert.Equal(t, "holder read x", ask(t, conn, "x"))
	}
}

func TestForwarderDialsRefusingPortLessOftenOverTime(t *testing.T) {
	dials := func(from, to time.Duration) (count int) {
		for refused := time.Duration(0); refused < to; refused += retryAfter(refused) {
			if refused >= from {
				count++
			}
		}
		return count
	}
	assert.InDelta(t, 85, dials(0, time.Second), 5)
	assert.InDelta(t, 20, dials(3*time.Second, 4*time.Second), 1)
	// If the application needs between 0.5 s and 2 s to start, a connection waits at most a
	// fiftieth longer than that.
	for started := 500 * time.Millisecond; started <= 2*time.Second; started += 10 * time.Millisecond {
		assert.LessOrEqual(t, retryAfter(started), started/50)
	}
}
