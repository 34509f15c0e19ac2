// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"slices"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/api"
)

// startSlot is the Lease of the start lock.
var startSlot = api.StartLockLease("db")

// checkStart demands that the pod holds the start lock when a child begins. In quiet times no other
// pod may be starting at that instant. The check excuses a machine that has just woken from a
// pause, because its clock stood still.
func checkStart(l *checks, c *child) {
	p := c.pod()
	if !slices.Contains(p.slots, startSlot) || c.excused || l.Now() <= p.node.wokeAt+lingering && p.node.wokeAt > 0 {
		return
	}
	if lease, ok := p.w.api.Lease(startSlot); !ok || lease.Holder != p.identity() {
		l.Violate(startsBeside, "%s begins, and %s is not its pod's", c.name, startSlot)
	}
	// A start that began before the end of the faults may have lost the lock, so it does not
	// count.
	for _, other := range l.alive {
		if p.w.calm && other.began > p.w.healed && other.pod() != p && startsNow(other) {
			l.Violate(startsBeside, "%s begins while %s starts", c.name, other.name)
		}
	}
}

// checkStartReleased demands that a pod releases the start lock only after its application is
// ready, or dead.
func checkStartReleased(l *checks, slot, holder string) {
	if slot != startSlot {
		return
	}
	for _, c := range l.alive {
		if c.pod().identity() == holder && startsNow(c) {
			l.Violate(startsBeside, "%s releases %s while %s starts", holder, slot, c.name)
		}
	}
}

// startsNow reports whether the child runs in its pod's first container, and does not pass its
// probe yet. A container that the kubelet has replaced does not count.
func startsNow(c *child) bool {
	p := c.pod()
	return c.current() && c.container == p.containers[0] && !p.behaviour.serves(p.w.Now()-c.began)
}

// checkUnstopped demands that no agent stops an application that needs no slot. The check ignores
// deleted pods, and containers that the kubelet has replaced.
func checkUnstopped(l *checks, c *child, d *gate.Drain) {
	if p := c.pod(); p.startsOnly() && !p.stopping && !p.shown.deleted && c.current() {
		l.Violate(stopped, "%s is to stop, because %s", c.name, d.Reason)
	}
}
