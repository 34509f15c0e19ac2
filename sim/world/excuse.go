// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
)

// MostUnfrozen bounds the time for which a child runs on after its machine was paused past the
// deadline. In this time the wall clock is set right, the shim notices the leap, and the shim
// freezes the child.
const MostUnfrozen = setRight + Quick

// absent reports whether docs/guarantees.md excuses the child from exclusivity, for a time or for
// good. The field Excused reports an excuse for good. A child is excused while its shim has frozen
// it, while its machine is paused, and just after a pause if its slot has expired. If the machine
// is suspended just after the pause, the excuse lasts until the machine goes on, because a
// suspended shim cannot freeze its child. With the gate "readiness" a child whose slot has expired
// is excused, too, while its pod cannot store its status.
func (l *checks) absent(c *Child, slot string) bool {
	n := c.Pod().Node
	if c.Excused || n.Paused || c.still {
		return true
	}
	if !l.expired(c, slot) {
		return false
	}
	r := l.Renewals[Key(slot, c.Pod().Identity(), c.Hold)]
	return n.wokeAt > r.At && (l.Now() <= n.unfrozenUntil || n.frozen && n.stoppedAt <= n.unfrozenUntil) ||
		c.Pod().Gate == api.GateReadiness && c.Pod().Shown.unstorable()
}

// expired reports whether the fastest clock lets a standby take the child's slot.
func (l *checks) expired(c *Child, slot string) bool {
	r, ok := l.Renewals[Key(slot, c.Pod().Identity(), c.Hold)]
	return ok && l.Now() > r.freeEarly()
}

// unstorable reports whether the pod cannot store its status, or could not store its
// status until a moment ago. Until the status is stored, the pod may stay Ready after its
// slot has expired.
func (s *shown) unstorable() bool {
	p := s.pod
	w, a := p.w, p.Agent()
	return !w.Calm || w.API.Away || w.API.Weather != apiserver.Fair || a == nil || a.Process.Frozen() || a.blocked != nil ||
		!p.Healthy() || w.Now() < max(w.Healed, p.Node.wokeAt, a.began)+s.mostUnready()
}

// mostUnready bounds the time until the API server has stored that a pod is not Ready. The time
// counts from the instant from which the requests of the pod's agent reach the API server
// again.
func (s *shown) mostUnready() time.Duration {
	requests := 2 * Slow(BudgetOf(s.pod.LeaseDuration).RequestTimeout) // two requests hang
	pause := Slow(Slowest)                                             // the agent waits between two attempts
	return requests + pause + 5*time.Second                            // a new agent process starts
}
