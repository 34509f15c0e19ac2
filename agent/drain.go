// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/agent/ends"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/pace"
)

// stopsAtOnce is the time from the order to drain until the write that makes the pod not Ready.
// If the child stops within that time, the write is needless, and would only delay the release.
const stopsAtOnce = 100 * time.Millisecond

// drain stops the children of the hold. The drain ends when all children are proven dead, or when
// the deadline has passed. Meanwhile the agent may continue to renew, so that the children get
// their grace. A renewal that succeeds does not cancel the drain.
func (h *hold) drain(ctx context.Context) error {
	h.orderedAt = h.state.now
	// The probes end before the order to drain, so that no probe meets a stopping child.
	h.state.probes.Follow(nil)
	for {
		state, now := h.state.claim.State(), h.state.now
		if h.state.shims.Proven(h.id) || now >= state.Deadline {
			return nil
		}
		// The agent sends the order to drain before the pod's status. With the gate "readiness",
		// the drain ends only by a status that is stored after that order.
		h.stopChildren(state)
		wake := min(state.Deadline, h.state.starts.act(ctx, now, startFacts{holds: true}))
		shown := h.state.readiness.Draining(now, h.labelled(), h.end.why.Reason, h.orderedAt, h.spared())
		wake = min(wake, h.state.publish(ctx, shown))
		if !h.end.why.Expires {
			wake = min(wake, h.renewOn(ctx, state), h.extend(state))
		}
		if err := h.state.wait(ctx, wake); err != nil {
			return err
		}
	}
}

// stopChildren orders the shims of the hold to drain. Once another pod may run under a slot of the
// hold, stopChildren also orders these shims to kill their children.
func (h *hold) stopChildren(s elector.State) {
	for _, r := range h.state.shims.Grantees(h.id) {
		h.stopChild(r)
		if s.Taken && r.Phase == gate.Draining {
			h.state.orders.kill(r, ends.Lost.Reason)
		}
	}
}

// stopChild orders a shim to drain.
func (h *hold) stopChild(r gate.Report) {
	grace := h.end.why.Lasts(h.state.self.Budget, h.state.config.Grace)
	if h.end.why.Final && r.HasChild() && h.state.config.Shims != nil {
		h.state.orders.end(r, h.id, h.end.why.Reason, grace)
		return
	}
	h.state.orders.drain(r, h.id, h.end.why.Reason, grace)
}

// spared reports whether the pod stays Ready while its child stops.
func (h *hold) spared() bool {
	return h.end.why.Spares && h.turn.Proven && h.state.staysReady()
}

// labelled returns the hold because of which the pod has a holder's label; empty for a hold without
// slots.
func (h *hold) labelled() string {
	if h.state.config.slotless() {
		return ""
	}
	return h.id
}

// renewOn renews the hold while its children stop, and remembers whether the children still serve.
// The result is the instant of the next renewal.
func (h *hold) renewOn(ctx context.Context, s elector.State) time.Duration {
	wake := pace.Never
	switch soon := h.orderedAt + stopsAtOnce; {
	case !h.needed(s):
	case !h.serves() && h.state.now < soon:
		wake = soon
	default:
		h.learnServing(s)
	}
	return min(wake, h.renew(ctx, s, false))
}
