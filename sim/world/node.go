// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// node is a machine with a clock, a network and pods.
type node struct {
	w    *World
	name string
	rng  *rand.Rand
	boot string
	engine.Clock
	up      bool
	frozen  bool
	cutOut  bool
	cutIn   bool
	wallOff time.Duration
	// set is the sum of all steps of the wall clock.
	set time.Duration
	// deferred has the events that wait until the node's processes go on.
	deferred []func()
	// paused reports that the machine and its clock stand still. The field "wokeAt" is the true
	// time at which the last pause ended. The field "due" has the kubelet's work that waits for the
	// end of the pause.
	paused bool
	wokeAt time.Duration
	due    []func()
	// lingersUntil is the instant by which the shims have frozen each child that outlived its slot
	// in the last pause. The field "stoppedAt" is the instant at which the node last stopped.
	lingersUntil, stoppedAt time.Duration
	// amiss counts the pauses after which the wall clock has not been set right yet. The field
	// "rightAt" is the instant at which the wall clock was set right last.
	amiss   int
	rightAt time.Duration
	// tenants has the pods of the node whose application no agent starts: a [waiter], a [comer]
	// or a [localPod].
	tenants []tenant
}

// tenant is a pod whose application no agent starts: a [waiter], a [comer] or a [localPod]. The
// faults of the pod's node call the methods of tenant.
type tenant interface {
	freeze()
	thaw()
	// crash ends the process of the pod, and boot starts a process again.
	crash()
	boot()
	// leapt is called when the wall clock was set.
	leapt()
}

// skew bounds the error of a clock's rate: chronyd slews a clock by a twelfth at most.
const skew = 1. / 12

func (w *World) newNode(name string) {
	n := &node{w: w, name: name, rng: w.Source(name)}
	n.Clock = engine.NewClock(w.Engine, n.anyRate())
	n.wallOff = engine.Between(n.rng, -time.Minute, time.Minute)
	n.bootUp()
	w.nodes = append(w.nodes, n)
}

// newClient returns the client of a process on the node. The node nil is the API server's own
// machine.
func (w *World) newClient(p *engine.Process, name string, n *node) *apiserver.Client {
	if n == nil {
		return w.api.NewClient(p, name, nil)
	}
	return w.api.NewClient(p, name, cable{n})
}

// cable connects a node with the API server.
type cable struct{ *node }

// Out reports whether packets leave the node.
func (c cable) Out() bool { return c.up && !c.cutOut }

// In reports whether packets reach the node.
func (c cable) In() bool { return c.up && !c.cutIn }

// anyRate draws the rate of a clock within the skew.
func (n *node) anyRate() float64 { return 1 - skew + 2*skew*n.rng.Float64() }

// bootUp gives the node a new boot id, and starts its clock.
func (n *node) bootUp() {
	n.boot = fmt.Sprintf("boot-%08x", n.rng.Uint32())
	n.up = true
	n.Start(engine.Between(n.rng, time.Minute, 100*time.Hour))
}

// whenAwake runs f now, or as soon as the node goes on.
func (n *node) whenAwake(f func()) {
	if n.frozen {
		n.deferred = append(n.deferred, f)
		return
	}
	f()
}
