// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// node has a clock, a network and, on it, pods.
type node struct {
	w    *world
	name string
	rng  *rand.Rand
	boot string
	// rate of its clock against true time, and what the clock said at zero.
	rate    float64
	base    time.Duration
	booted  time.Duration // true time
	up      bool
	frozen  bool
	cutOut  bool
	cutIn   bool
	wallOff time.Duration
}

// skew bounds how far a clock's rate is off: chronyd slews up to a twelfth
// either way.
const skew = 1. / 12

func (w *world) newNode(name string) *node {
	n := &node{w: w, name: name, rng: w.source(name)}
	n.rate = 1 - skew + 2*skew*n.rng.Float64()
	n.wallOff = between(n.rng, -time.Minute, time.Minute)
	n.bootUp()
	w.nodes = append(w.nodes, n)
	return n
}

func (n *node) bootUp() {
	n.boot = fmt.Sprintf("boot-%08x", n.rng.Uint32())
	n.booted, n.up = n.w.now(), true
	n.base = between(n.rng, time.Minute, 100*time.Hour)
}

// now is the node's CLOCK_BOOTTIME.
func (n *node) now() time.Duration {
	return n.base + time.Duration(n.rate*float64(n.w.now()-n.booted))
}

// at runs f when the node's clock shows the instant.
func (n *node) at(instant time.Duration, f func()) {
	n.w.after(time.Duration(float64(instant-n.now())/n.rate)+1, f)
}
