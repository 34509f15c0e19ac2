// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/agent/leave"
	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/agent/status"
	"github.com/metaparticle-io/metaparticle/agent/turn"
	"github.com/metaparticle-io/metaparticle/api"
)

// leaving has what package leave needs to decide how a holder leaves the pod's Services.
type leaving struct {
	// id identifies the leave. Each agent process of a hold uses another id, because the pods
	// that offered to an earlier process may be gone.
	id string

	leave leave.Leave
	leave.Decision
	// turn is the revision of the successor; zero if no turn begins with the successor.
	turn api.Revision
	// signalled is the instant of the agent's first read of the pod after a stop signal of the
	// kubelet; zero without such a signal. The answer to that read is in the fields "ends",
	// "known" and "deleted", as in [leave.Facts].
	signalled, ends time.Duration
	known, deleted  bool
	// lastRead is the instant of the last read of the pod. A shim may report stop signals again
	// and again, so the agent reads again only after Budget.Retry.
	lastRead time.Duration
}

// endpointDelay returns the time that a holder takes to leave its Services; zero for a pod
// without ports, or without turns.
func (s *state) endpointDelay() time.Duration {
	if !s.rollout.takesTurns() || len(s.config.Ports) == 0 {
		return 0
	}
	return s.config.EndpointDelay
}

// replaced reports whether the pod belongs to a StatefulSet or a DaemonSet. The controller of such
// a pod may be strict ([Config.ReplacesUnready]), but a leave treats all such pods alike.
func (s *state) replaced() bool {
	kind, _, _ := strings.Cut(s.config.Workload, "/")
	return kind == "StatefulSet" || kind == "DaemonSet"
}

// stopDelay returns the longest time for which a shim may hold back a stop signal of the kubelet; zero
// for no delay. A living agent ends the delay earlier, unless the API server stores none of its
// writes. Then the shim stops the application a few seconds before the end of the leave. Until the
// agent knows how much of the pod's grace is left, the delay is short.
func (h *hold) stopDelay() time.Duration {
	l, delay := &h.leaving, h.endpointDelay()
	if delay == 0 || l.Over || l.restarts() {
		return 0
	}
	if !l.known {
		return min(gate.Heard, h.config.Grace/2)
	}
	return min(delay+leave.Patience+2*leave.Stored, max(0, l.ends-l.signalled)/2)
}

// restarts reports whether the kubelet's stop signal belongs to the restart of one container:
// the API server has answered that nobody has deleted the pod.
func (l *leaving) restarts() bool { return l.known && !l.deleted }

// due returns the argument "wish" if the wished end is due now; otherwise the zero value. A yield
// is due once the pod has left its Services. Every other end is due immediately.
func (l *leaving) due(wish ending) ending {
	if wish.reason == status.ReasonYield && !l.Over {
		return ending{}
	}
	return wish
}

// leave decides how the pod leaves its Services before the wished end. The result is the
// instant of the next decision.
func (h *hold) leave(ctx context.Context, s elector.State, wish ending, serves bool) time.Duration {
	now, l := h.now, &h.leaving
	cause, successor, turn := wish.cause(), wish.successor, wish.turn
	signalled, preStop := h.stopSignals()
	readAt := pace.Never
	if signalled && l.signalled == 0 {
		readAt = l.lastRead + h.self.Budget.Retry
	}
	if now >= readAt {
		l.signalled, l.lastRead, readAt = now, now, pace.Never
		h.readDeletion(ctx)
	}
	if signalled && !l.restarts() {
		cause = leave.Deletion
		successor, turn = h.rollout.pod.Deleted(now, h.turns)
	}
	f := leave.Facts{
		Cause: cause, Successor: successor, EndpointDelay: h.endpointDelay(),
		Ready: serves && (h.stored.ready || h.readiness.Postponed(now)) && h.rollout.asks.version != "", Unready: h.stored.known && !h.stored.ready,
		Replaced: h.replaced(), Offers: h.offers(),
		PreStop: preStop, Says: s.Leaving, Serving: !s.Serving.IsZero(),
		Known: l.known, Deleted: l.deleted, Ends: l.ends,
	}
	out := l.Out
	l.Decision = l.leave.Next(now, f)
	if l.restarts() && !signalled {
		l.signalled, l.known = 0, false // the next stop signal may belong to a deletion
	}
	if l.Out && !out {
		l.turn = turn
		h.config.Log.Info("leaving the Services", "hold", h.id, "successor", l.Successor)
	}
	return min(l.Wake, readAt)
}

// stopSignals reports whether the kubelet has signalled a shim of the hold, and whether a shim
// still runs the preStop hook.
func (h *hold) stopSignals() (signalled, preStop bool) {
	for _, r := range h.shims.Reports() {
		if r.Stopping && r.Phase == gate.Running && r.Hold == h.id {
			signalled, preStop = true, preStop || r.PreStop
		}
	}
	return signalled, preStop
}

// offers returns the offers of other pods. An offer in the holder's own name does not count,
// because the holder could otherwise yield to itself.
func (h *hold) offers() []api.Offer {
	own := func(o api.Offer) bool { return o.Identity == h.self.Identity }
	return slices.DeleteFunc(slices.Clone(h.rollout.asks.offersTo(h.leaving.id)), own)
}

// readDeletion reads the pod until the API server answers. The answer states whether the pod is
// being deleted, and how much of its grace is left. The stop signal alone does not prove a
// deletion, because the kubelet also stops a container that fails its liveness probe.
func (h *hold) readDeletion(ctx context.Context) {
	h.group.Go(func() {
		h.readGrace(ctx, func(sent time.Duration, pod kube.Pod) {
			h.leaving.known, h.leaving.deleted, h.leaving.ends = true, pod.Deleted, sent+pod.GraceLeft
			h.deletion.learn("", pod.Deleted)
		})
	})
}

// ending has the reason for the end of a hold, the grace of the hold's children, and the
// successor that the releases name.
type ending struct {
	reason    string
	grace     time.Duration
	successor string
	// turn is the revision that has its turn next; zero for none.
	turn api.Revision
}

// cause returns the [leave.Cause] of an end by a yield, and [leave.None] for every other end.
func (e ending) cause() leave.Cause {
	switch {
	case e.reason != status.ReasonYield:
		return leave.None
	case e.turn.Valid():
		return leave.Turn
	}
	return leave.Yield
}

// learnTurn stores whether the children serve, the instant since which they serve, whether a person has
// paused the slot, and the last ask. If children that have served for at least [turn.Proof] stop
// serving, it also stores the present instant.
func (h *hold) learnTurn(now, since time.Duration, serves, paused bool) {
	if serves && !h.turns.Serves {
		h.turns.Serving = since
	} else if !serves && h.turns.Serves && now >= h.turns.Serving+turn.Proof {
		h.turns.Stopped = now
	}
	h.turns.Serves, h.turns.Paused, h.turns.Ask = serves, paused, h.rollout.asks.last
}

// decideTurn returns package turn's decision about the hold. For a pod that takes no turns, only the
// field Wake is set, to [pace.Never].
func (h *hold) decideTurn() turn.HolderDecision {
	if !h.rollout.takesTurns() {
		return turn.HolderDecision{Wake: pace.Never}
	}
	got := h.rollout.pod.Holder(h.now, h.config.Wall(), h.turns)
	h.turns.Rollout = got.Rollout
	return got
}

// rolloutText returns the value of [api.RolloutAnnotation] for a renewal that replaces the record. A person may
// have changed the number of transitions during the hold. With another number than that of the Lease,
// the text would count as outdated for the rest of the hold.
func (h *hold) rolloutText(r lease.Record) string {
	h.turns.Rollout.Transitions = r.Transitions
	return h.turns.Rollout.String()
}

// releaseTo stores the value of [api.RolloutAnnotation] for the releasing write, and returns the pod
// that the write names as successor. If the argument "to" names a pod, that pod is the
// successor, and the argument "revision" is its revision. If "to" is empty, a pod that is about
// to end yields to the pod that asks.
func (h *hold) releaseTo(to string, revision api.Revision) (successor string) {
	if !h.rollout.takesTurns() {
		return to
	}
	slot := slotOf(h.record())
	slot.Hold, slot.Rollout = h.turns.ID, h.turns.Rollout
	if to == "" && !h.mayHold() {
		h.turns.Ask = h.rollout.asks.last
		to, revision = h.rollout.pod.Deleted(h.now, h.turns)
	}
	left, successor := h.rollout.pod.Released(slot, to, revision)
	h.rollout.released = releaseText{hold: h.turns.ID, text: left.String()}
	h.rollout.waiting = turn.StandbyFacts{Failed: h.turns.Rollout.Yielder != ""}
	return successor
}
