// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/shim"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// Slew changes the rate of the node's clock, as a time daemon does to correct it.
func (n *Node) Slew() {
	rate := n.anyRate()
	n.SetRate(rate)
	n.w.Note(n.Name, "its clock goes at %.3f", rate)
}

// Step sets the node's wall clock forwards or back. CLOCK_BOOTTIME does not change, but
// shims notice the step.
func (n *Node) Step(by time.Duration) {
	n.wallOff += by
	n.set += by
	n.w.Note(n.Name, "its wall clock is off by %v", n.wallOff)
	for _, p := range n.Pods() {
		for _, c := range p.Containers {
			for _, s := range slices.Clone(c.Shims) {
				s.push(shim.ClockSet)
			}
		}
		for _, a := range p.Agents {
			a.leapt()
		}
	}
	for _, t := range n.Tenants {
		t.leapt()
	}
}

// AnyStep draws a step of the wall clock, as a time daemon or a person may set it.
func (n *Node) AnyStep() time.Duration { return engine.Between(n.rng, -2*time.Hour, 2*time.Hour) }

// Pause stops the node and its clock from outside, as a hypervisor stops a virtual machine.
func (n *Node) Pause() {
	if n.Paused || n.frozen || !n.Up {
		return
	}
	n.w.Note(n.Name, "is paused, and its clock stands still")
	n.Paused = true
	n.Stand()
	n.stop()
}

// setRight bounds the time from the end of a pause until the hypervisor or a time
// daemon corrects the wall clock.
const setRight = 5 * time.Second

// Unpause lets the node go on. The node's wall clock is behind by the length of the pause, until
// the hypervisor or a time daemon corrects the clock.
func (n *Node) Unpause() {
	if !n.Paused {
		return
	}
	lost := n.Stood()
	n.w.Note(n.Name, "goes on after a pause of %v", lost)
	n.Paused = false
	n.wallOff -= lost
	n.wokeAt = n.w.Now()
	n.unfrozenUntil = n.wokeAt + MostUnfrozen
	n.amiss++
	n.w.After(engine.Between(n.rng, 0, setRight), func() {
		n.Step(lost)
		n.amiss--
		n.rightAt = n.w.Now()
		checkLeapSent(n.w.Checks, n)
	})
	n.Clock.Run()
	for _, c := range slices.Clone(n.w.Checks.Alive) {
		if c.Pod().Node == n {
			c.Excused = c.Excused || c.unwatched() // no process could stop the child
			n.w.Checks.checkUnfrozen(c)
		}
	}
	n.goOn()
	n.catchUp()
}

// stop suspends every process of the node, until [Node.goOn] is called.
func (n *Node) stop() {
	n.frozen, n.stoppedAt = true, n.w.Now()
	for _, p := range n.Pods() {
		for _, c := range n.w.Checks.Alive {
			if c.Pod() == p {
				c.drainBy = 0 // a suspended shim cannot drain
			}
		}
		for _, a := range p.Agents {
			a.Freeze()
		}
		if p.Order.Waiter != nil {
			p.Order.Waiter.Freeze()
		}
	}
	for _, t := range n.Tenants {
		t.freeze()
	}
}

// goOn lets the stopped processes of the node continue.
func (n *Node) goOn() {
	n.frozen = false
	deferred := n.deferred
	n.deferred = nil
	for _, f := range deferred {
		f()
	}
	for _, p := range n.Pods() {
		for _, c := range p.Containers {
			for _, s := range slices.Clone(c.Shims) {
				s.resume()
			}
		}
		for _, a := range slices.Clone(p.Agents) {
			if !a.FrozenAlone {
				a.Thaw()
			}
		}
		if p.Order.Waiter != nil {
			p.Order.Waiter.Thaw()
		}
	}
	for _, t := range n.Tenants {
		t.thaw()
	}
}

// catchUp does the kubelet's work that waited for the end of the pause.
func (n *Node) catchUp() {
	due := n.due
	n.due = nil
	for _, f := range due {
		f()
	}
}
