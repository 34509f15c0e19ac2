// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"slices"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/lease"
)

// A leap of the wall clock may be the trace of a pause, during which the deadline of
// the hold did not come nearer and the Lease ran out. A read that finds the Lease
// its own proves little: a standby may be about to take what has run out. So the
// agent renews at once, and only a renewal that was sent after the agent had heard
// of the leap, and was stored, answers it. Every standby then waits anew.

// tellsOfLeap reports whether the report tells of a leap that no report has told of
// before on its connection.
func tellsOfLeap(last gate.Report, known bool, r gate.Report) bool {
	return r.Leap != 0 && !r.Dead && (!known || last.Leap != r.Leap || r.Connected && !last.Connected)
}

// leapt takes in that the wall clock leapt. It returns the number of the leap.
func (a *Agent) leapt() int {
	a.leaps++
	a.config.Log.Info("the clock was set: renewing at once")
	// Whatever they were connected to may have given them up meanwhile.
	a.config.Reconnect()
	for _, s := range a.slots {
		// Each shim of the pod tells of the same leap: one attempt is for all.
		if s.hurried == 0 || a.now >= s.hurried+a.self.Budget.Retry {
			s.hurried, s.tryAt = a.now, a.now
		}
	}
	return a.leaps
}

// assure notes that a renewal was stored which was sent after so many leaps. Where
// more have come since, another renewal follows at once.
func (a *Agent) assure(s *slot, held *lease.Hold, leaps int, l *kube.Lease, err error) {
	switch {
	case err != nil || s.held != held || s.lost != nil || held.Record().Version != l.ResourceVersion:
	case leaps < a.leaps:
		s.tryAt = a.now
		fallthrough
	default:
		s.assured = max(s.assured, leaps)
	}
}

// answers returns the leap of the shim that a grant may answer now; zero for none.
func (a *Agent) answers(r gate.Report) int {
	leaps := a.orders.to(r.Shim).leaps
	for _, s := range a.slots {
		if s.held == nil || s.assured < leaps {
			return 0
		}
	}
	return r.Leap
}

// unanswered reports whether a grant is held back until a leap is answered.
func (a *Agent) unanswered(h *hold) bool {
	return slices.ContainsFunc(a.grantable(h.id), func(r gate.Report) bool { return r.Leap != 0 && a.answers(r) == 0 })
}
