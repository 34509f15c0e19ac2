// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"

	"github.com/metaparticle-io/metaparticle/sim/engine"
)

var (
	// ErrUnreachable is the error of a connection that is refused.
	ErrUnreachable = errors.New("connection refused")
	// ErrBroken is the error of a connection that breaks.
	ErrBroken  = fmt.Errorf("connection: %w", syscall.ECONNRESET)
	errDropped = errors.New("lost on the way")
)

// Network is the network between the clients and the server.
type Network struct {
	engine *engine.Engine
	// Weather has the faults of requests.
	Weather Weather
	// Lag delays each answer of the server, as of a busy or remote server.
	Lag time.Duration
	// Commit also delays the answer to each write of a Lease that the server stores, as with a slow etcd.
	Commit time.Duration
	// Store delays each write of a Lease, so that its sender has perhaps given up before. A write that is
	// late anyway has no further delay, because the field "Latest" bounds the delay.
	Store time.Duration
	// Latest bounds the time from the sending of a request to its arrival.
	Latest time.Duration
	// Away reports that no packet reaches the server. [Server.GoDown] and [Server.ComeUp] set it.
	Away bool
}

func newNetwork(e *engine.Engine) Network { return Network{engine: e, Weather: Fair, Latest: latest} }

// latest is the default bound of a request's delay. With a lease of 30 s, a renewal with such a
// delay arrives after the drain has begun. All stories but "table" raise the bound to their longest
// lease duration, if that duration is longer.
const latest = 25 * time.Second

// trip draws the time of a packet's way in one direction.
func trip(r *rand.Rand, f Weather) time.Duration {
	d := engine.Between(r, 200*time.Microsecond, 4*time.Millisecond)
	if engine.Chance(r, f.Slow) {
		d += engine.Between(r, 0, time.Second)
	}
	return d
}

// noticed bounds the time until a client notices that the network is cut. The package agent/kube
// promises 8 s.
const noticed = 8 * time.Second
