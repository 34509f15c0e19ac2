// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/proof"
)

// drain stops the children of a hold, and returns when all of them are proven
// dead, or when the deadline has passed without proof. It goes on renewing
// where that gives them their grace, and is not cancelled by a renewal that
// succeeds.
func (a *Agent) drain(ctx context.Context, h *hold) error {
	h.drains = a.now
	// Before they are told: no probe may meet a child that stops.
	a.probes.Follow(nil)
	for !a.shims.Proven(h.id) && a.now < a.deadline() {
		// First: where readiness is all there is, what is stored after the
		// gate was told is the answer.
		a.showDraining(h)
		taken := a.taken()
		for _, r := range a.shims.Grantees(h.id) {
			a.stopChild(h, r)
			if taken && r.Phase == gate.Draining {
				a.orders.kill(r, reasonLost)
			}
		}
		if h.renews() {
			a.renewAll(ctx, h)
			a.extend(h)
		}
		a.wakeAt(a.deadline())
		if err := a.wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

// renews reports whether the hold is renewed while it drains. Not one that is
// lost in part, nor one that nobody can vouch for: the sooner they expire, the
// sooner somebody goes on.
func (h *hold) renews() bool {
	return h.reason != reasonLost && h.reason != reasonUnproven
}

// stopChild asks a shim to drain. A shim drops a grant that it has not used yet. In a
// pod that is being deleted the container ends with the child's own exit code. A shim
// that stood by again would end as if the kubelet's signal had killed the application.
func (a *Agent) stopChild(h *hold, r gate.Report) {
	if h.reason == reasonPodDeleted && proof.HasChild(r) && a.config.Asides != nil {
		a.orders.end(r, h.id, h.reason, h.grace)
		return
	}
	a.orders.drain(r, h.id, h.reason, h.grace)
}

// letGo ends a hold: what it held is, from here on, a standby's affair,
// which releases what is proven (at once, if it does not want it back) and
// waits out what is not.
func (a *Agent) letGo(h *hold) {
	a.metrics.holding(0)
	a.probes.Follow(nil)
	switch {
	case !a.shims.Proven(h.id):
		a.config.Log.Warn("not released: no proof that all children are dead", "hold", h.id)
		a.events.notReleased(a.config.Slots)
	case h.reason == reasonYield:
		// Those that stand by act within milliseconds; one whose watch has
		// ended is back after a retry.
		a.owes, a.aside = true, a.self.Budget.Retry
	case h.reason == reasonNotGranted:
		// The disk is no better in a moment. Whoever has a good one goes first,
		// and if nobody is there, this pod writes no more than a holder does.
		a.owes, a.aside = true, a.self.Budget.Renew
	case h.reason == reasonEnded, h.reason == reasonNotStarted:
		a.owes = true
	}
	for _, s := range a.slots {
		a.leaveBy = max(a.leaveBy, s.held.ExpiresAt())
		a.drop(s)
	}
}
