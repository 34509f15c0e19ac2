// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// The functions below cause and end the faults of nodes and pods. The caller holds the
// mutex.

// cut cuts the network of the node, one way or both.
func (n *node) cut(out, in bool) {
	n.cutOut, n.cutIn = out, in
	n.w.Note(n.name, "is cut off (out %v, in %v)", out, in)
	n.w.api.Watches.Severed()
}

// heal ends all faults of the node.
func (n *node) heal() {
	if n.cutOut || n.cutIn {
		n.w.Note(n.name, "is healed")
	}
	n.cutOut, n.cutIn = false, false
	n.unpause()
	n.thaw()
	if !n.up {
		n.reboot()
	}
}

func (n *node) pods() []*pod {
	return slices.DeleteFunc(slices.Clone(n.w.pods), func(p *pod) bool { return p.node != n })
}

// freeze suspends the node, whose clock goes on.
func (n *node) freeze() {
	if n.frozen || !n.up {
		return
	}
	n.w.Note(n.name, "is suspended")
	n.stop()
}

// stop suspends every process of the node, until [node.goOn] is called.
func (n *node) stop() {
	n.frozen, n.stoppedAt = true, n.w.Now()
	for _, p := range n.pods() {
		for _, c := range n.w.checks.alive {
			if c.pod() == p {
				c.drainBy = 0 // a suspended shim cannot drain
			}
		}
		for _, a := range p.agents {
			a.Freeze()
		}
		if p.order.waiter != nil {
			p.order.waiter.Freeze()
		}
	}
	for _, t := range n.tenants {
		t.freeze()
	}
}

// thaw ends the suspension of the node.
func (n *node) thaw() {
	if !n.frozen || n.paused {
		return
	}
	n.w.Note(n.name, "wakes")
	if n.stoppedAt <= n.lingersUntil {
		// The node stopped just after a pause, before its shims had frozen their children.
		n.lingersUntil = max(n.lingersUntil, n.w.Now()+quick)
		for _, c := range slices.Clone(n.w.checks.alive) {
			if c.pod().node == n {
				n.w.checks.lingers(c)
			}
		}
	}
	n.goOn()
}

// goOn lets the stopped processes of the node continue.
func (n *node) goOn() {
	n.frozen = false
	deferred := n.deferred
	n.deferred = nil
	for _, f := range deferred {
		f()
	}
	for _, p := range n.pods() {
		for _, c := range p.containers {
			for _, s := range slices.Clone(c.shims) {
				s.resume()
			}
		}
		for _, a := range slices.Clone(p.agents) {
			if !a.frozen {
				a.Thaw()
			}
		}
		if p.order.waiter != nil {
			p.order.waiter.Thaw()
		}
	}
	for _, t := range n.tenants {
		t.thaw()
	}
}

// excuseChildren excuses the children of a paused machine. The children may have outlived their
// slots, but none of them ran during the pause.
func (n *node) excuseChildren() {
	for _, c := range n.w.checks.alive {
		if c.pod().node == n {
			c.excused = true
		}
	}
}

// crash ends every process of the node immediately.
func (n *node) crash() {
	if !n.up {
		return
	}
	n.w.Note(n.name, "crashes")
	if n.paused {
		n.excuseChildren() // the children stood still until now
	}
	n.up, n.frozen, n.paused, n.deferred = false, false, false, nil
	for _, p := range n.pods() {
		for _, c := range p.containers {
			for _, s := range c.shims {
				s.crashes()
			}
			c.shims, c.pending, c.done = nil, false, false
		}
		if p.gate == api.GatePod {
			p.order.killAll()
		}
		agents := p.agents
		p.agents = nil
		for _, a := range agents {
			a.Die()
		}
		if p.stopping {
			p.tidy()
		}
	}
	for _, t := range n.tenants {
		t.crash()
	}
	n.w.api.Watches.Severed()
}

// reboot boots the node, and the kubelet starts its pods.
func (n *node) reboot() {
	n.w.Note(n.name, "boots")
	n.bootUp()
	for _, p := range n.pods() {
		n.w.After(engine.Between(n.rng, 500*time.Millisecond, 3*time.Second), p.startAll)
	}
	for _, t := range n.tenants {
		t.boot()
	}
	n.catchUp()
}

// forget deletes a pod by force. The API server removes the pod's object, but the pod's
// processes stay.
func (p *pod) forget() {
	if !p.object {
		return
	}
	p.w.Note(p.name, "pod object is deleted by force")
	p.unregister()
}

// healthy reports whether the pod is able to compete for its slots.
func (p *pod) healthy() bool {
	return p.object && !p.stopping && !p.gone && p.node.up && !p.node.frozen && !p.node.cutIn && !p.node.cutOut
}

// recover ends the faults of the pod's processes. Then the kubelet starts the processes that are
// missing. A pod whose object is gone is stopped instead.
func (p *pod) recover() {
	if !p.object {
		p.stop()
		return
	}
	for len(p.agents) > 1 {
		p.agents[0].kill()
	}
	for _, a := range p.agents {
		a.thawAlone()
		a.unblock()
	}
	for _, c := range p.containers {
		for _, s := range c.shims {
			s.thaw()
		}
		// The older one of two shims ends, unless the kubelet has forgotten its container.
		if len(c.shims) > 1 && !c.shims[0].dead && !c.shims[0].forgotten {
			c.shims[0].exit()
		}
		c.failures = 0
		c.pending = false
	}
	p.w.After(engine.Between(p.rng, 500*time.Millisecond, 2*time.Second), p.startAll)
}
