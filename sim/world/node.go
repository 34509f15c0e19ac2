// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// node has a clock, a network and, on it, pods.
type node struct {
	w    *World
	name string
	rng  *rand.Rand
	boot string
	clock
	up      bool
	frozen  bool
	cutOut  bool
	cutIn   bool
	wallOff time.Duration
	// set is the sum of all steps of the wall clock.
	set time.Duration
	// deferred has the events that came up while the processes of the node stood still.
	deferred []func()
	// paused: the machine stands still, with its clock. wokeAt is the true time at which
	// it last went on; due has the kubelet's work for then.
	paused bool
	wokeAt time.Duration
	due    []func()
}

// skew bounds how far a clock's rate is off: chronyd slews up to a twelfth
// either way.
const skew = 1. / 12

func (w *World) newNode(name string) {
	n := &node{w: w, name: name, rng: w.source(name), clock: clock{w: w}}
	n.rate = n.anyRate()
	n.wallOff = between(n.rng, -time.Minute, time.Minute)
	n.bootUp()
	w.nodes = append(w.nodes, n)
}

// anyRate returns a random rate of a clock: time daemons slew by up to a twelfth.
func (n *node) anyRate() float64 { return 1 - skew + 2*skew*n.rng.Float64() }

func (n *node) bootUp() {
	n.boot = fmt.Sprintf("boot-%08x", n.rng.Uint32())
	n.up = true
	n.start(between(n.rng, time.Minute, 100*time.Hour))
}
