// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"slices"
	"time"
)

// mayBid reports whether a bid may begin, or go on: a pod of several slots
// takes none of them before it sees all of them free. It would keep others from
// running though it cannot run itself. Once it has some, patience decides.
func (a *Agent) mayBid() bool {
	if len(a.slots) == 1 || slices.ContainsFunc(a.slots, func(s *slot) bool { return s.held != nil }) {
		return true
	}
	for _, s := range a.slots {
		if !a.obtainable(s) {
			return false
		}
	}
	return true
}

// obtainable reports whether the slot may be taken now, as far as is seen. The pod
// that held it counts on it still: after an outage it is to be the first to begin.
func (a *Agent) obtainable(s *slot) bool {
	r, ok := s.view.Record()
	at, sees := s.view.FreeAt(a.self.Budget.Duration)
	// Where watches are refused an agent sees one slot for moments, and never all of
	// them at one: what it read of the others within a duration has to do. Before a
	// slot is taken it is read again.
	recent := a.now < s.view.Heard()+a.self.Budget.Duration
	if !sees && r.Holder != "" {
		at = s.view.ExpiresAt(a.self.Budget.Duration)
	}
	switch {
	case ok && a.proven(r):
		return true
	case !ok || !sees && !recent:
		return false
	case a.now >= at:
		return true
	}
	a.wakeAt(at)
	return false
}

// patientUntil returns until when slots are kept while the next cannot be had: a
// lease duration after the last of them was acquired. Another pod was faster there,
// and may be done soon, or the API server refuses the write. What an earlier agent
// process began is kept until its child is dead.
func (a *Agent) patientUntil() (at time.Duration, ends bool) {
	return a.bid.since + a.self.Budget.Duration, !a.bid.resume
}

// standBack gives up what was acquired, because the next slot cannot be had.
// Others have a renewal's period to take what is given back.
func (a *Agent) standBack(missing *slot) {
	a.config.Log.Info("giving slots back", "missing", missing.name, "hold", a.bid.id)
	a.owes, a.aside = true, a.self.Budget.Renew
	a.abandon()
}
