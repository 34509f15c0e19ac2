// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"slices"

	"github.com/metaparticle-io/metaparticle/api"
)

// StartSlot is the Lease of the start lock.
var StartSlot = api.StartLockLease("db")

// checkStart demands that the pod holds the start lock when a child begins. In quiet times, which
// have no faults, no other pod may be starting at that instant. The check excuses a child whose
// machine was paused until just now. The machine's clock stood still, so the pod may have lost the
// lock unnoticed.
func checkStart(l *checks, c *Child) {
	p := c.Pod()
	if !slices.Contains(p.Slots, StartSlot) || c.Excused || l.Now() <= p.Node.wokeAt+MostUnfrozen && p.Node.wokeAt > 0 {
		return
	}
	if lease, ok := p.w.API.Lease(StartSlot); !ok || lease.Holder != p.Identity() {
		l.Violate(startsBeside, "%s begins, and %s is not its pod's", c.Name, StartSlot)
	}
	// A child that began before the end of the faults does not count, because the child's pod
	// may have lost the lock.
	for _, other := range l.Alive {
		if p.w.Calm && other.Began > p.w.Healed && other.Pod() != p && startsNow(other) {
			l.Violate(startsBeside, "%s begins while %s starts", c.Name, other.Name)
		}
	}
}

// checkStartReleased demands that a pod releases the start lock only after its application is
// ready, or dead.
func checkStartReleased(l *checks, slot, holder string) {
	if slot != StartSlot {
		return
	}
	for _, c := range l.Alive {
		if c.Pod().Identity() == holder && startsNow(c) {
			l.Violate(startsBeside, "%s releases %s while %s starts", holder, slot, c.Name)
		}
	}
}

// startsNow reports whether the child runs in its pod's first container, and does not pass its
// probe yet. A container that the kubelet has replaced does not count.
func startsNow(c *Child) bool {
	p := c.Pod()
	return c.Current() && c.Container == p.Containers[0] && !p.Behaviour.Serves(p.w.Now()-c.Began)
}

// checkUnstopped demands that no agent stops an application that needs no slot. The check ignores
// deleted pods, and containers that the kubelet has replaced.
func checkUnstopped(l *checks, c *Child, reason string) {
	if p := c.Pod(); p.StartsOnly() && !p.Stopping && !p.Shown.deleted && c.Current() {
		l.Violate(Stopped, "%s is to stop, because %s", c.Name, reason)
	}
}
