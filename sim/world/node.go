// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// Node is a machine with a clock, a network and pods.
type Node struct {
	w *World
	// Name is the name of the node, and Zone its zone; empty in most worlds.
	Name, Zone string
	rng        *rand.Rand
	boot       string
	engine.Clock
	// Up reports that the machine runs.
	Up     bool
	frozen bool
	// CutOut reports that no packet leaves the node. The field CutIn reports that no packet reaches
	// the node.
	CutOut bool
	CutIn  bool
	// apiOut and apiIn report the same of the packets between the node and the API server alone. No packet of
	// this node reaches the nodes in the field "apart".
	apiOut, apiIn bool
	apart         map[*Node]bool
	wallOff       time.Duration
	// set is the sum of all steps of the wall clock.
	set time.Duration
	// deferred has the events that wait until the node's processes go on.
	deferred []func()
	// Paused reports that the node and its clock stand still. The field "wokeAt" is the true
	// time at which the last pause ended. The field "due" has the kubelet's work that waits for the
	// end of the pause.
	Paused bool
	wokeAt time.Duration
	due    []func()
	// unfrozenUntil is the instant by which the shims have frozen each child that outlived its slot
	// in the last pause. The field "stoppedAt" is the instant at which the node last stopped.
	unfrozenUntil, stoppedAt time.Duration
	// amiss counts the pauses after which the wall clock has not been set right yet. The field
	// "rightAt" is the instant at which the wall clock was set right last.
	amiss   int
	rightAt time.Duration
	// Tenants has the node's pods in which no agent starts the application. Each of these pods is
	// a [Waiter], a [Comer] or a [LocalPod].
	Tenants []Tenant
	// heir is the machine that has replaced this machine; nil for none.
	heir *Node
}

// present returns the machine that has the name of the node now.
func present(n *Node) *Node {
	for n.heir != nil {
		n = n.heir
	}
	return n
}

// Tenant is a pod in which no agent starts the application: a [Waiter], a [Comer] or a [LocalPod].
// The faults of the pod's node call the methods of Tenant.
type Tenant interface {
	freeze()
	thaw()
	// crash ends the process of the pod, and Boot starts a process again.
	crash()
	Boot()
	// leapt is called when the wall clock was set.
	leapt()
}

// Skew bounds the error of a clock's rate: chronyd slews a clock by a twelfth at most.
const Skew = 1. / 12

// NewNode adds a running machine.
func (w *World) NewNode(name string) { w.Nodes = append(w.Nodes, w.newNode(name, name)) }

// newNode makes a running node with the name. The argument "source" selects its random source.
func (w *World) newNode(name, source string) *Node {
	n := &Node{w: w, Name: name, rng: w.Source(source)}
	n.Clock = engine.NewClock(w.Engine, n.anyRate())
	n.wallOff = engine.Between(n.rng, -time.Minute, time.Minute)
	n.bootUp()
	return n
}

// Pods returns the pods on the node.
func (n *Node) Pods() []*Pod {
	return slices.DeleteFunc(slices.Clone(n.w.Pods), func(p *Pod) bool { return p.Node != n })
}

// newClient returns the client of a process on the node. The node nil is the API server's own
// machine.
func (w *World) newClient(p *engine.Process, name string, n *Node) *apiserver.Client {
	if n == nil {
		return w.API.NewClient(p, name, nil)
	}
	return w.API.NewClient(p, name, cable{n})
}

// cable connects a node with the API server.
type cable struct{ *Node }

// Out reports whether packets leave the node.
func (c cable) Out() bool { return c.Up && !c.CutOut && !c.apiOut && c.heir == nil }

// In reports whether packets reach the node.
func (c cable) In() bool { return c.Up && !c.CutIn && !c.apiIn && c.heir == nil }

// anyRate draws the rate of a clock, between 1 - Skew and 1 + Skew.
func (n *Node) anyRate() float64 { return 1 - Skew + 2*Skew*n.rng.Float64() }

// bootUp gives the node a new boot id, and starts its clock.
func (n *Node) bootUp() {
	n.boot = fmt.Sprintf("boot-%08x", n.rng.Uint32())
	n.Up = true
	n.Start(engine.Between(n.rng, time.Minute, 100*time.Hour))
}

// whenAwake runs f now, or as soon as the node goes on.
func (n *Node) whenAwake(f func()) {
	if n.frozen {
		n.deferred = append(n.deferred, f)
		return
	}
	f()
}

// whenUnpaused runs f now, or as soon as a paused node goes on. The kubelet's work waits
// because the kubelet runs on the node.
func (n *Node) whenUnpaused(f func()) {
	if n.Paused {
		n.due = append(n.due, f)
		return
	}
	f()
}
