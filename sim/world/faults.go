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

// Cut cuts the network of the node, one way or both.
func (n *Node) Cut(out, in bool) {
	n.CutOut, n.CutIn = out, in
	n.w.Note(n.Name, "is cut off (out %v, in %v)", out, in)
	n.w.API.Watches.Severed()
}

// online reports whether nothing cuts the network between the node and the API server.
func (n *Node) online() bool { return !n.CutOut && !n.CutIn && !n.apiOut && !n.apiIn }

// CutAPI cuts the network between the node and the API server alone, one way or both.
func (n *Node) CutAPI(out, in bool) {
	n.apiOut, n.apiIn = out, in
	n.w.Note(n.Name, "is cut off from the API server (out %v, in %v)", out, in)
	n.w.API.Watches.Severed()
}

// Part cuts the way of packets from the node to another one.
func (n *Node) Part(from *Node) {
	if n.apart == nil {
		n.apart = map[*Node]bool{}
	}
	n.apart[from] = true
	n.w.Note(n.Name, "reaches %s no more", from.Name)
}

// Reconnect ends all cuts of the node's network.
func (n *Node) Reconnect() {
	if n.CutOut || n.CutIn || n.apiOut || n.apiIn || len(n.apart) > 0 {
		n.w.Note(n.Name, "is healed")
	}
	n.CutOut, n.CutIn, n.apiOut, n.apiIn = false, false, false, false
	clear(n.apart)
}

// Heal ends all faults of the node.
func (n *Node) Heal() {
	n.Reconnect()
	n.Unpause()
	n.Thaw()
	if !n.Up {
		n.Reboot()
	}
}

// Freeze suspends the node, whose clock goes on.
func (n *Node) Freeze() {
	if n.frozen || !n.Up {
		return
	}
	n.w.Note(n.Name, "is suspended")
	n.stop()
}

// Thaw ends the suspension of the node.
func (n *Node) Thaw() {
	if !n.frozen || n.Paused {
		return
	}
	n.w.Note(n.Name, "wakes")
	if n.stoppedAt <= n.unfrozenUntil {
		// The suspension began just after a pause of the machine, so the shims may not have frozen
		// the children that outlived their slots. The shims now get the time [Quick] for that.
		n.unfrozenUntil = max(n.unfrozenUntil, n.w.Now()+Quick)
		for _, c := range slices.Clone(n.w.Checks.Alive) {
			if c.Pod().Node == n {
				n.w.Checks.checkUnfrozen(c)
			}
		}
	}
	n.goOn()
}

// excuseChildren excuses the children of a paused machine. The children may have outlived their
// slots, but none of them ran during the pause.
func (n *Node) excuseChildren() {
	for _, c := range n.w.Checks.Alive {
		if c.Pod().Node == n {
			c.Excused = true
		}
	}
}

// Crash ends every process of the node immediately.
func (n *Node) Crash() {
	if !n.Up {
		return
	}
	n.w.Note(n.Name, "crashes")
	if n.Paused {
		n.excuseChildren() // the children stood still until now
	}
	n.Up, n.frozen, n.Paused, n.deferred = false, false, false, nil
	for _, p := range n.Pods() {
		for _, c := range p.Containers {
			for _, s := range c.Shims {
				s.crashes()
			}
			c.Shims, c.Pending, c.done = nil, false, false
		}
		if p.Gate == api.GatePod {
			p.Order.killAll()
		}
		agents := p.Agents
		p.Agents = nil
		for _, a := range agents {
			a.Die()
		}
		if p.Stopping {
			p.tidy()
		}
	}
	for _, t := range n.Tenants {
		t.crash()
	}
	n.w.API.Watches.Severed()
}

// Reboot boots the node, and the kubelet starts its pods.
func (n *Node) Reboot() {
	n.w.Note(n.Name, "boots")
	n.bootUp()
	for _, p := range n.Pods() {
		n.w.After(engine.Between(n.rng, 500*time.Millisecond, 3*time.Second), p.startAll)
	}
	for _, t := range n.Tenants {
		t.Boot()
	}
	n.catchUp()
}

// Forget deletes a pod by force. The API server removes the pod's object, but the pod's
// processes stay.
func (p *Pod) Forget() {
	if !p.Object {
		return
	}
	p.w.Note(p.Name, "pod object is deleted by force")
	p.unregister()
}

// Recover ends the faults of the pod's processes. Then the kubelet starts the processes that are
// missing. A pod whose object is gone is stopped instead.
func (p *Pod) Recover() {
	if !p.Object {
		p.Stop()
		return
	}
	p.Full, p.Unforkable, p.Clogged = false, false, false
	for len(p.Agents) > 1 {
		p.Agents[0].Kill()
	}
	for _, a := range p.Agents {
		a.ThawAlone()
		a.unblock()
	}
	for _, c := range p.Containers {
		for _, s := range c.Shims {
			s.Thaw()
		}
		// The older of two shims ends, unless the kubelet has forgotten that shim.
		if len(c.Shims) > 1 && !c.Shims[0].Dead && !c.Shims[0].Forgotten {
			c.Shims[0].Exit()
		}
		c.Failures = 0
		c.Pending = false
	}
	p.w.After(engine.Between(p.rng, 500*time.Millisecond, 2*time.Second), p.startAll)
}
