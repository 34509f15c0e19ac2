// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/shim"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// slew changes the rate of the node's clock, as a time daemon does to correct it.
func (n *node) slew() {
	rate := n.anyRate()
	n.SetRate(rate)
	n.w.Note(n.name, "its clock goes at %.3f", rate)
}

// step sets the node's wall clock forwards or back. CLOCK_BOOTTIME does not change, but
// shims notice the step.
func (n *node) step(by time.Duration) {
	n.wallOff += by
	n.set += by
	n.w.Note(n.name, "its wall clock is off by %v", n.wallOff)
	for _, p := range n.pods() {
		for _, c := range p.containers {
			for _, s := range slices.Clone(c.shims) {
				s.push(shim.ClockSet)
			}
		}
		for _, a := range p.agents {
			a.leapt()
		}
	}
	for _, t := range n.tenants {
		t.leapt()
	}
}

// anyStep draws a step of the wall clock, as a time daemon or a person may set it.
func (n *node) anyStep() time.Duration { return engine.Between(n.rng, -2*time.Hour, 2*time.Hour) }

// pause stops the machine and its clock from outside, as a hypervisor does.
func (n *node) pause() {
	if n.paused || n.frozen || !n.up {
		return
	}
	n.w.Note(n.name, "is paused, and its clock stands still")
	n.paused = true
	n.Stand()
	n.stop()
}

// setRight bounds the time from the end of a pause until the hypervisor or a time
// daemon corrects the wall clock.
const setRight = 5 * time.Second

// unpause lets the machine go on. The wall clock is behind until the hypervisor or a time
// daemon corrects it.
func (n *node) unpause() {
	if !n.paused {
		return
	}
	lost := n.Stood()
	n.w.Note(n.name, "goes on after a pause of %v", lost)
	n.paused = false
	n.wallOff -= lost
	n.wokeAt = n.w.Now()
	n.lingersUntil = n.wokeAt + lingering
	n.amiss++
	n.w.After(engine.Between(n.rng, 0, setRight), func() {
		n.step(lost)
		n.amiss--
		n.rightAt = n.w.Now()
		checkLeapSent(n.w.checks, n)
	})
	n.Clock.Run()
	for _, c := range slices.Clone(n.w.checks.alive) {
		if c.pod().node == n {
			c.excused = c.excused || c.unwatched() // no process could stop the child
			n.w.checks.lingers(c)
		}
	}
	n.goOn()
	n.catchUp()
}

// catchUp does the kubelet's work that waited for the end of the pause.
func (n *node) catchUp() {
	due := n.due
	n.due = nil
	for _, f := range due {
		f()
	}
}

// whenUnpaused runs f now, or as soon as the machine goes on. The kubelet's work waits
// because the kubelet is on the machine.
func (n *node) whenUnpaused(f func()) {
	if n.paused {
		n.due = append(n.due, f)
		return
	}
	f()
}
