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

// drain is the state of an agent whose hold ends.
type drain struct {
	*hold
	end ending
	// orderedAt is the instant at which the drain began.
	orderedAt time.Duration
}

// stopsAtOnce is the time from the order to drain until the write that makes the pod not Ready.
// If the child stops within that time, the write is needless, and would only delay the release.
const stopsAtOnce = 100 * time.Millisecond

// run stops the children of the hold. The drain ends when all children are proven dead, or when
// the deadline has passed. Meanwhile the agent may continue to renew, so that the children get
// their grace. A renewal that succeeds does not cancel the drain.
func (d *drain) run(ctx context.Context) error {
	// The probes end before the order to drain, so that no probe meets a stopping child.
	d.probes.Follow(nil)
	for {
		state, now := d.claim.State(), d.now
		if d.shims.Proven(d.id) || now >= state.Deadline {
			return nil
		}
		// The agent sends the order to drain before the pod's status. With the gate "readiness",
		// the drain ends only by a status that is stored after that order.
		d.stopChildren(state)
		wake := min(state.Deadline, d.starts.act(ctx, now, startFacts{holds: true}))
		shown := d.readiness.Draining(now, d.labelled(), d.end.why.Reason, d.orderedAt, d.spared())
		wake = min(wake, d.publish(ctx, shown))
		if !d.end.why.Expires {
			wake = min(wake, d.renewOn(ctx, state), d.extend(state))
		}
		if err := d.wait(ctx, wake); err != nil {
			return err
		}
	}
}

// stopChildren orders the shims of the hold to drain. Once another pod may run under a slot of the
// hold, stopChildren also orders these shims to kill their children.
func (d *drain) stopChildren(s elector.State) {
	for _, r := range d.shims.Grantees(d.id) {
		d.stopChild(r)
		if s.Taken && r.Phase == gate.Draining {
			d.orders.kill(r, ends.Lost.Reason)
		}
	}
}

// stopChild orders a shim to drain.
func (d *drain) stopChild(r gate.Report) {
	grace := d.end.why.Lasts(d.self.Budget, d.config.Grace)
	if d.end.why.Final && r.HasChild() && d.config.Shims != nil {
		d.orders.end(r, d.id, d.end.why.Reason, grace)
		return
	}
	d.orders.drain(r, d.id, d.end.why.Reason, grace)
}

// spared reports whether the pod stays Ready while its child stops.
func (d *drain) spared() bool {
	return d.end.why.Spares && d.turn.Proven && d.staysReady()
}

// labelled returns the hold because of which the pod has a holder's label; empty for a hold without
// slots.
func (d *drain) labelled() string {
	if d.config.slotless() {
		return ""
	}
	return d.id
}

// renewOn renews the hold while its children stop, and remembers whether the children still serve.
// The result is the instant of the next renewal.
func (d *drain) renewOn(ctx context.Context, s elector.State) time.Duration {
	wake := pace.Never
	switch soon := d.orderedAt + stopsAtOnce; {
	case !d.needed(s):
	case !d.serves() && d.now < soon:
		wake = soon
	default:
		d.learnServing(s)
	}
	return min(wake, d.renew(ctx, s, false))
}
