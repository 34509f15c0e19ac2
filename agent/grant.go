// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/agent/ends"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/pace"
)

// driveStarts lets the claim of the start lock decide, and sends that claim's requests. Then driveStarts
// dismisses each container whose wait for the start lock has reached its bound. The result is the
// instant of the next decision.
func (h *hold) driveStarts(ctx context.Context, s elector.State) time.Duration {
	waits := h.mayGrant(s) && len(h.grantable()) > 0
	return min(h.state.starts.act(ctx, h.state.now, startFacts{holds: true, waits: waits, serves: h.serves()}), h.dismissWaiting())
}

// dismissWaiting ends the wait of each container that has waited for the start lock for as long as the
// annotation metaparticle.io/wait-at-most permits. The result is the instant of the next decision.
func (h *hold) dismissWaiting() time.Duration {
	if h.state.starts.open() {
		return pace.Never
	}
	return h.state.waits.dismiss(h.state.now)
}

// waitsToStart reports whether a shim waits for the start lock.
func (h *hold) waitsToStart() bool { return !h.state.starts.open() && len(h.grantable()) > 0 }

// grantWaiting sends a first grant to each waiting shim of the pod, and extends the other grants as
// far as the renewals allow. If a container has two shims, it drains the earlier shim. The
// result is the instant of the next attempt.
func (h *hold) grantWaiting(s elector.State) time.Duration {
	h.refused = false
	wake := pace.Never
	// After a leap, a first grant waits for a renewal that follows the leap. The leap may mean
	// that the virtual machine was paused, and that the Lease expired meanwhile. In a pod
	// without shims, nothing could freeze the child until that renewal. A first grant also waits
	// for the check of the pod's deletion.
	if h.mayGrant(s) && h.state.starts.open() {
		for _, r := range h.grantable() {
			if err := h.state.waits.run(); err != nil {
				h.state.config.Log.Debug("grant waits: the decision to run is not on the disk (is the disk full?)", "shim", r.Shim, "err", err)
				h.refused, wake = true, min(wake, h.state.now+h.state.self.Budget.Retry)
				continue
			}
			again := h.give(s, r)
			if again == pace.Never {
				h.state.starts.begins(r.Shim)
			}
			wake = min(wake, again)
		}
	}
	wake = min(wake, h.extend(s))
	for _, r := range h.state.shims.Superseded() {
		h.stopSuperseded(r)
	}
	return wake
}

// stopSuperseded drains a shim whose container has a later shim. If the pod has only a start
// lock, the drained shim could get no further grant, so the order also ends its container.
func (h *hold) stopSuperseded(r gate.Report) {
	reason, grace := ends.Unproven.Reason, h.state.self.Budget.Drain
	if h.state.config.slotless() {
		h.state.orders.end(r, r.Hold, reason, grace)
		return
	}
	h.state.orders.drain(r, r.Hold, reason, grace)
}

// mayGrant reports whether the agent may send a first grant. The start lock must permit the
// grant, too, but mayGrant does not check that lock.
func (h *hold) mayGrant(s elector.State) bool {
	return h.state.mayHold() && s.Renewed() && !h.state.deletion.checking()
}

// extend sends another grant to each shim with a grant of the hold, if the deadline or the delay
// of a stop signal has changed. The function also sends the grant that thaws the child after a
// leap. If a grant could not be sent, the next attempt follows after Budget.Retry. The result is the
// instant of that attempt.
func (h *hold) extend(s elector.State) time.Duration {
	wake := pace.Never
	for _, r := range h.state.shims.Grantees(h.id) {
		if !r.Connected {
			continue
		}
		last := h.state.orders.to(r.Shim)
		leap := h.answers(s, r)
		changed := last.until != s.Deadline || last.stopDelay != h.stopDelay() || leap != 0 && leap != last.answered
		if changed && h.state.now >= last.retryAt {
			wake = min(wake, h.give(s, r))
		}
		if at := h.state.orders.to(r.Shim).retryAt; at != 0 {
			wake = min(wake, at)
		}
	}
	return wake
}

func (h *hold) grantable() []gate.Report { return h.state.grantableOf(h.id) }

// give sends a grant. If the gate refuses the grant, the result is the instant of the next
// attempt; otherwise [pace.Never].
func (h *hold) give(s elector.State, r gate.Report) time.Duration {
	b := h.state.self.Budget
	again := h.state.now + b.Retry
	err := h.state.orders.grant(r.Shim, gate.Grant{
		Hold:      h.id,
		Slots:     gate.SlotsOf(s.Tokens),
		Deadline:  s.Deadline,
		BootID:    h.state.self.BootID,
		Drain:     b.Drain,
		Kill:      b.Kill,
		PodIP:     h.state.config.PodIP,
		StartBy:   h.state.starts.startBy(),
		Leap:      h.answers(s, r),
		StopDelay: h.stopDelay(),
	}, again)
	if err == nil {
		return pace.Never
	}
	h.refused = h.refused || errors.Is(err, gate.ErrNotNoted)
	return again
}

// answers returns the number of the shim's last leap, if a grant may thaw the child after that
// leap; otherwise zero.
func (h *hold) answers(s elector.State, r gate.Report) int {
	if s.Confirmed < h.state.orders.to(r.Shim).leaps {
		return 0
	}
	return r.Leap
}

// awaitsRenewal reports whether a first grant waits for the renewal that must follow the last
// leap.
func (h *hold) awaitsRenewal(s elector.State) bool {
	return !s.Renewed() && len(h.grantable()) > 0
}

// slotsOf returns the slots that are held, in the order of acquisition.
func slotsOf(s elector.State) []string {
	var all []string
	for _, t := range s.Tokens {
		all = append(all, t.Slot)
	}
	return all
}
