// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/lease"
)

// Why a hold ends, as it appears in logs, in Events and at the shims.
const (
	reasonEnded    = "Ended"
	reasonYield    = "Yielded"
	reasonLost     = "Lost"
	reasonCutOff   = "RenewDeadlinePassed"
	reasonUnproven = "EarlierShimUnproven"
	reasonDrained  = "ShimDrained"
	// reasonPodDeleted: when it began, nobody here knew that the pod was about to end.
	reasonPodDeleted = "PodDeleted"
	// reasonNotGranted: no child can be started here. To hold on would keep the
	// slot from those who can.
	reasonNotGranted = "NotGranted"
	// reasonNotStarted: after an init container nothing else asked for a grant.
	reasonNotStarted = "NotStarted"
)

// startsWithin bounds how long a hold is kept between a gated init container
// and what comes after it. The kubelet's pauses between two pulls of an image
// grow to five minutes: a container that has not started by then has failed for
// long enough to let others have their turn.
const startsWithin = 5 * time.Minute

// hold is all slots, held together under one number.
type hold struct {
	id    string
	since time.Duration
	// serving is since when its children are known to run and to pass their
	// probes; served: they did under an earlier agent process.
	serving time.Time
	served  bool
	// reason is why it ends; empty while it lasts.
	reason string
	// resumed: an earlier agent process began it.
	resumed bool
	// grace is what its children have to stop in.
	grace time.Duration
	// drains is since when it drains, zero while it does not.
	drains time.Duration
	// refused: the last grant of a first child could not even be noted.
	refused bool
	// between is since when it waits for what comes after an init container,
	// zero while it does not.
	between time.Duration
}

// begin makes the hold of the slots that were acquired.
func (a *Agent) begin() *hold {
	h := &hold{id: a.bid.id, since: a.now, resumed: a.bid.resume}
	if h.resumed {
		h.serving = a.slots[0].held.Record().Notes.Serving
		h.served = !h.serving.IsZero()
		a.asked = h.id // by the process that began it
	}
	a.bid = bid{}
	// One that was asked for before there was anything to yield is over.
	a.yielding = false
	return h
}

// hold grants, renews and watches over the children until something ends that;
// then the children are drained, and only when all of them are dead is the
// slot released.
func (a *Agent) hold(ctx context.Context, h *hold) error {
	// Whatever happens here: the release is the last thing, and has to be
	// proven.
	defer a.letGo(h)
	a.closePorts()
	if h.resumed {
		a.config.Log.Info("resumed", "hold", h.id, "slots", a.tokens(), "deadline", a.deadline())
	} else {
		a.metrics.acquired()
		a.config.Log.Info("acquired", "hold", h.id, "slots", a.tokens(), "deadline", a.deadline())
		a.events.acquired(a.tokens())
	}
	for {
		a.metrics.holding(a.deadline())
		if h.reason, h.grace = a.endOf(h); h.reason != "" {
			break
		}
		a.grant(h)
		a.follow(h)
		a.renewAll(ctx, h)
		a.guard(ctx)
		a.showHolder(h)
		if err := a.wait(ctx); err != nil {
			return err
		}
	}
	a.config.Log.Info("hold ends", "hold", h.id, "reason", h.reason)
	a.metrics.ends(h.reason)
	a.events.ends(h.reason, a.config.Slots)
	return a.drain(ctx, h)
}

// endOf says why the hold has to end now, if it has to, and what grace that
// leaves its children.
func (a *Agent) endOf(h *hold) (reason string, grace time.Duration) {
	drain := a.self.Budget.Drain
	if !a.shims.Succeeded(h.id) {
		h.between = 0
	}
	for _, s := range a.slots {
		if s.lost != nil {
			a.config.Log.Warn("slot is lost", "lease", s.name, "hold", h.id, "err", s.lost)
			return reasonLost, a.lostGrace(s.lost)
		}
	}
	switch {
	case a.now >= a.drainAt():
		return reasonCutOff, drain
	case a.shims.Doubted(h.id):
		return reasonUnproven, drain
	case a.shims.Drained(h.id):
		return reasonDrained, drain
	case !a.shims.Outstanding(h.id) && h.refused:
		return reasonNotGranted, drain
	case a.belated == h.id && a.now < h.since+a.self.Budget.Duration:
		return reasonPodDeleted, a.config.Grace
	case a.shims.Succeeded(h.id) && !a.stopping && !a.leaving && !a.yielding:
		if a.now >= a.startsBy(h) {
			return reasonNotStarted, drain
		}
		a.wakeAt(a.startsBy(h))
	case !a.shims.Outstanding(h.id) && (a.stopping || a.leaving || len(a.grantable(h.id)) == 0):
		return reasonEnded, drain
	case a.yielding && (!a.leaving || !a.config.KubeletStops):
		return reasonYield, a.config.Grace
	}
	a.wakeAt(a.drainAt())
	return "", 0
}

// startsBy is until when the hold is kept for what comes after an init container.
func (a *Agent) startsBy(h *hold) time.Duration {
	if h.between == 0 {
		h.between = a.now
	}
	return h.between + startsWithin
}

// grant gives every waiting shim of the pod a grant, and extends those that
// were given, as far as the renewals allow.
func (a *Agent) grant(h *hold) {
	h.refused = false
	if !a.stopping && !a.leaving {
		for _, r := range a.grantable(h.id) {
			if r.Leap == 0 || a.answers(r) != 0 {
				a.give(h, r)
			}
		}
	}
	a.extend(h)
	for _, r := range a.shims.Superseded() {
		a.orders.drain(r, r.Hold, reasonUnproven, a.self.Budget.Drain)
	}
}

// extend tells the shims of the hold the deadline, where it has moved or answers a
// leap.
func (a *Agent) extend(h *hold) {
	for _, r := range a.shims.Grantees(h.id) {
		if !r.Connected {
			continue
		}
		last := a.orders.to(r.Shim)
		if leap := a.answers(r); last.until != a.deadline() || leap != 0 && leap != last.answered {
			a.give(h, r)
		}
	}
}

// grantable returns the shims that may have a grant of the hold now. A shim that was
// drained of the hold gets none.
func (a *Agent) grantable(hold string) []gate.Report {
	return slices.DeleteFunc(a.shims.Grantable(hold), func(r gate.Report) bool { return a.orders.to(r.Shim).drained == hold })
}

// give sends a grant that lasts until the deadline of now.
func (a *Agent) give(h *hold, r gate.Report) {
	b := a.self.Budget
	err := a.orders.grant(r.Shim, gate.Grant{
		Hold:     h.id,
		Slots:    a.tokens(),
		Deadline: a.deadline(),
		BootID:   a.self.BootID,
		Drain:    b.Drain,
		Kill:     b.Kill,
		PodIP:    a.config.PodIP,
		Leap:     a.answers(r),
	})
	if err != nil {
		h.refused = h.refused || errors.Is(err, gate.ErrNotNoted)
		a.wakeAt(a.now + b.Retry)
	}
}

// tokens are the slots and their fencing tokens, in the order of acquisition.
func (a *Agent) tokens() []gate.SlotToken {
	var all []gate.SlotToken
	for _, s := range a.slots {
		all = append(all, gate.SlotToken{Slot: s.name, Token: s.held.Token()})
	}
	return all
}

// deadline of several slots is the earliest.
func (a *Agent) deadline() time.Duration { return a.earliest((*lease.Hold).Deadline) }

// drainAt of several slots is the earliest.
func (a *Agent) drainAt() time.Duration { return a.earliest((*lease.Hold).DrainAt) }

func (a *Agent) earliest(of func(*lease.Hold) time.Duration) time.Duration {
	at := of(a.slots[0].held)
	for _, s := range a.slots[1:] {
		at = min(at, of(s.held))
	}
	return at
}
