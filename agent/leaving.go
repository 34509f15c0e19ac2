// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"slices"
	"strconv"
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
	// id identifies the present announcement; empty without one. Answers to earlier announcements do not
	// count, because their pods may be gone.
	id string
	// lookAt is the instant at which the holder reads the next Lease, if it has no answer by then.
	lookAt time.Duration
	// wish is the wish because of which the hold ends, or names its successor; zero for none.
	wish api.Word
	// unanswered are the last pods to which the holder has announced its end in vain, and withdrawals counts
	// such announcements. Before the instant announcesAt the holder announces nothing that needs an answer.
	unanswered  []string
	withdrawals int
	announcesAt time.Duration

	leave leave.Leave
	leave.Decision
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
// is due once the pod has left its Services, and the successor has answered if the yield is not a
// person's. Every other end is due immediately.
func (l *leaving) due(wish ending) ending {
	cause := wish.cause()
	if cause != leave.None && !l.Over || (cause == leave.Turn || cause == leave.Hang) && !l.Answered {
		return ending{}
	}
	return wish
}

// withdrawn learns that nobody has answered the announcement. The next one waits: ten seconds, and each time
// twice as long, for at most five minutes.
func (l *leaving) withdrawn(now time.Duration) {
	l.notAnswered()
	l.announcesAt = now + min(10*time.Second<<min(l.withdrawals, 5), 5*time.Minute)
	l.withdrawals++
}

// notAnswered learns that the pod with the wish has not answered. Once nobody has answered that the
// application hangs, all wishes count anew.
func (l *leaving) notAnswered() {
	if l.wish.Identity == "" {
		l.unanswered = nil
		return
	}
	l.unanswered = append(slices.DeleteFunc(slices.Clone(l.unanswered), func(one string) bool { return one == l.wish.Identity }), l.wish.Identity)
	l.unanswered = l.unanswered[max(0, len(l.unanswered)-api.MostWords):]
}

// leave decides how the pod leaves its Services before the wished end. The result is the
// instant of the next decision.
func (h *hold) leave(ctx context.Context, s elector.State, wish ending, serves bool) time.Duration {
	now, l := h.now, &h.leaving
	cause, successor := wish.cause(), wish.successor
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
		wish.wish = h.rollout.pod.Deleted(now, h.turns)
		successor = wish.wish.Identity
	}
	f := leave.Facts{
		Cause: cause, Successor: successor, EndpointDelay: h.endpointDelay(),
		Ready: serves && (h.stored.ready || h.readiness.Postponed(now)) && h.rollout.heard.sees, Unready: h.stored.known && !h.stored.ready,
		Replaced: h.replaced(), Alone: h.rollout.heard.aloneIn(h.id), Answers: h.rollout.heard.answers(l.id),
		PreStop: preStop, Serving: !s.Serving.IsZero(),
		Known: l.known, Deleted: l.deleted, Ends: l.ends,
	}
	if l.id == s.Leave {
		f.Says = s.Leaving
	}
	out, says := l.Out, l.Says
	if l.Says == "" {
		l.id, l.wish = h.id+"."+strconv.FormatInt(now.Milliseconds(), 10), wish.wish
		l.lookAt = now + leave.Another/2
	}
	l.Decision = l.leave.Next(now, f)
	if l.Withdrawn {
		h.config.Log.Info("nobody answered, so the hold goes on", "hold", h.id, "successor", successor)
		l.withdrawn(now)
	}
	if asked, _ := api.Asked(says); cause == leave.Deletion && asked != "" && l.Says != says && !l.Answered {
		l.notAnswered()
	}
	if l.restarts() && !signalled {
		l.signalled, l.known = 0, false // the next stop signal may belong to a deletion
	}
	if l.Out && !out {
		h.config.Log.Info("leaving the Services", "hold", h.id, "successor", l.Successor)
	}
	if l.announcesAt > now {
		readAt = min(readAt, l.announcesAt)
	}
	return min(l.Wake, readAt, h.lookForAnswer(ctx))
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
	// wish is the successor's wish for the slot; zero for a successor that a person has named.
	wish api.Word
}

// cause returns the [leave.Cause] of an end that the holder announces, and [leave.None] for every other.
func (e ending) cause() leave.Cause {
	switch {
	case e.reason == status.ReasonHung:
		return leave.Hang
	case e.reason != status.ReasonYield:
		return leave.None
	case e.wish.Identity != "":
		return leave.Turn
	}
	return leave.Yield
}

// learnTurn stores whether the children serve, the instant since which they serve, whether a person has
// paused the slot, and the wishes of other pods. If children that have served stop serving, it also stores the
// present instant. The wish for which the holder has announced its end comes first until the announcement is
// withdrawn, although the answer has replaced it. The wishes of pods that did not answer come last.
func (h *hold) learnTurn(now, since time.Duration, serves, paused bool) {
	if serves && !h.turns.Serves {
		h.turns.Serving, h.turns.Failing = since, 0
	} else if !serves && h.turns.Serves {
		h.turns.Failing = now
		if now >= h.turns.Serving+turn.Proof {
			h.turns.Stopped = now
		}
	}
	h.turns.Serves, h.turns.Paused, h.turns.Alone = serves, paused, h.rollout.heard.aloneIn(h.id)
	h.turns.Wishes, h.turns.Unanswered = h.rollout.heard.wishes(h.id), h.leaving.unanswered
	slices.SortStableFunc(h.turns.Wishes, func(a, b api.Word) int {
		return slices.Index(h.leaving.unanswered, a.Identity) - slices.Index(h.leaving.unanswered, b.Identity)
	})
	if h.leaving.Says != "" && h.leaving.wish.Identity != "" {
		h.turns.Wishes = slices.Insert(h.turns.Wishes, 0, h.leaving.wish)
	}
}

// hangsFirst reports whether the holder announces that its application hangs, and not that it yields to a
// wish, because the last announcement for that wish had no answer.
func (h *hold) hangsFirst() bool {
	announces := h.leaving.Says != "" && h.leaving.wish == h.turn.To
	return h.turn.Hangs && slices.Contains(h.leaving.unanswered, h.turn.To.Identity) && !announces
}

// decideTurn returns package turn's decision about the hold.
func (h *hold) decideTurn() turn.HolderDecision {
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
// that the write names as successor. If the end has no successor, a pod that is about to end yields to a
// pod that wishes for the slot.
func (h *hold) releaseTo(end ending) (successor string) {
	if !h.rollout.takesTurns() && end.reason != status.ReasonHung {
		return end.successor
	}
	slot := slotOf(h.record())
	slot.Hold, slot.Rollout = h.turns.ID, h.turns.Rollout
	if end.reason == status.ReasonHung {
		slot.Rollout = h.rollout.pod.Hung(h.turns)
	}
	slot.Rollout.Transitions = h.record().Transitions
	to, wish := end.successor, end.wish
	if to == "" && !h.mayHold() {
		wish = h.rollout.pod.Deleted(h.now, h.turns)
		to = wish.Identity
	}
	revision := wish.Revision
	if revision.Same(h.rollout.pod.Revision) {
		revision = api.Revision{} // a preference is no turn
	}
	left, successor := h.rollout.pod.Released(slot, to, revision)
	left.Moved = turn.Moved{From: h.self.Identity, Why: end.reason, Wish: wish.Say}
	h.rollout.released = releaseText{hold: h.turns.ID, text: left.String()}
	h.rollout.waiting = turn.StandbyFacts{Failed: h.turns.Rollout.Yielder != ""}
	return successor
}
