// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/claim"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/leave"
	"github.com/metaparticle-io/metaparticle/agent/show"
	"github.com/metaparticle-io/metaparticle/api"
)

// leaving is a hold's way out of the pod's Services. Package leave decides, and leaving
// remembers what the decisions depend on.
type leaving struct {
	leave leave.Leave
	leave.Decision
	// turn is the revision of the pod that follows; zero if that pod begins no turn.
	turn api.Revision
	// asked: the API server was asked about the pod's deletion. The other fields have its
	// answer, as in [leave.Facts].
	asked, known, deleted bool
	ends                  time.Duration
}

// endpointDelay returns the time that a holder takes to leave its Services; zero for a pod
// whose ports never change hands, or whose slot has no next Lease.
func (u *unit) endpointDelay() time.Duration {
	if !u.rollout.ordered() || len(u.config.Ports) == 0 {
		return 0
	}
	return u.config.EndpointDelay
}

// replaced reports whether the pod's controller deletes an old pod that is not Ready,
// however few are Ready.
func (u *unit) replaced() bool {
	kind, _, _ := strings.Cut(u.config.Workload, "/")
	return kind == "StatefulSet" || kind == "DaemonSet"
}

// delay returns the longest time for which a shim may hold a kubelet's stop signal back. The
// agent ends the wait; the rest is for an agent that has died.
func (h *hold) delay() time.Duration {
	delay := h.unit.endpointDelay()
	if delay == 0 || h.leaving.Over {
		return 0
	}
	return min(delay+leave.Answers+leave.Passing, h.unit.config.Grace/2)
}

// leaves decides how the pod leaves its Services. The result is the instant of the next
// decision.
func (h *hold) leaves(ctx context.Context, s claim.State) time.Duration {
	u, l := h.unit, &h.leaving
	cause, successor, turn := h.cause(s)
	if cause == leave.Deletion && !l.asked {
		l.asked = true
		h.askDeletion(ctx)
	}
	f := leave.Facts{
		Cause: cause, Successor: successor, Delay: u.endpointDelay(),
		Ready: h.serves() && u.stored.ready && u.rollout.asks.version != "", Unready: u.stored.known && !u.stored.ready,
		Replaced: u.replaced(), Offers: u.rollout.asks.offersTo(h.id),
		Says: s.Leaving, Serving: !s.Serving.IsZero(),
		Known: l.known, Deleted: l.deleted, Ends: l.ends,
	}
	out := l.Out
	l.Decision = l.leave.Next(h.loop.now, f)
	if l.Out && !out {
		l.turn = turn
		u.config.Log.Info("leaving the Services", "hold", h.id, "successor", l.Successor)
	}
	return l.Wake
}

// cause returns why the application is to stop, the pod that follows, and the revision
// whose turn begins.
func (h *hold) cause(s claim.State) (cause leave.Cause, successor string, turn api.Revision) {
	u, wish := h.unit, h.wish(s)
	switch {
	case slices.ContainsFunc(u.shims.Reports(), func(r gate.Report) bool {
		return r.Stopping && r.Phase == gate.Running && r.Hold == h.id
	}):
		successor, turn = u.rollout.pod.Deleted(h.loop.now, h.share.facts)
		return leave.Deletion, successor, turn
	case wish.reason != show.ReasonYield:
		return leave.None, "", api.Revision{}
	case wish.turn.Valid():
		return leave.Turn, wish.successor, wish.turn
	}
	return leave.Yield, wish.successor, api.Revision{}
}

// askDeletion asks the API server whether the pod is being deleted, and what is left of its
// grace. A kubelet also stops a container that fails its liveness probe.
func (h *hold) askDeletion(ctx context.Context) {
	bounded, cancel := context.WithTimeout(ctx, leave.Stored)
	h.loop.group.Go(func() {
		defer cancel()
		h.loop.askGrace(bounded, func(sent time.Duration, pod kube.Pod) {
			l := &h.leaving
			l.known, l.deleted, l.ends = true, pod.Deleted, sent+pod.GraceLeft
			h.unit.deletion.known = h.unit.deletion.known || pod.Deleted
		})
	})
}
