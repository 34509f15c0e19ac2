// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/agent/ends"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/leave"
	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
)

// leaving has what package leave needs to decide how a holder leaves the pod's Services.
type leaving struct {
	// id identifies the present announcement; empty without one. Answers to earlier announcements do not
	// count, because their pods may be gone.
	id string
	// lookAt is the instant at which the holder reads the next Lease, if it has no answer by then.
	lookAt time.Duration
	// to is the wish because of which the hold ends, or names its successor, as in [ending].
	to api.Word
	// unanswered are the last pods to which the holder has announced its end in vain. Before the instant announcesAt,
	// which comes the time "pause" after the last such announcement, it announces nothing that needs an answer.
	unanswered         []string
	pause, announcesAt time.Duration

	leave leave.Leave
	leave.Decision
	// signalled is the instant of the agent's first read of the pod after a stop signal of the kubelet; zero without
	// one. Grace is the answer to that read. A shim may report stop signals again and again, so the agent reads
	// again only Budget.Retry after the instant lastRead.
	signalled, lastRead time.Duration
	leave.Grace
}

// endpointDelay returns the time that a holder takes to leave its Services; zero without ports or turns.
func (s *state) endpointDelay() time.Duration {
	if !s.rollout.takesTurns() || len(s.config.Ports) == 0 {
		return 0
	}
	return s.config.EndpointDelay
}

// replaced reports whether the pod is gone before another one in its place is made, also if its controller is not
// strict ([Config.ReplacesUnready]).
func (s *state) replaced() bool {
	of, _ := api.ParseWorkload(s.config.Workload)
	return of.Owner().InPlace
}

// stopDelay returns the longest time for which a shim may hold back a stop signal of the kubelet. A living agent
// ends the delay earlier, unless the API server stores none of its writes. Then the shim stops the application a
// few seconds before the end of the leave. Until the agent knows the pod's grace, the delay is short.
func (h *hold) stopDelay() time.Duration {
	l, delay := &h.leaving, h.state.endpointDelay()
	if delay == 0 || l.Over || l.Restarts() {
		return 0
	}
	if !l.Known {
		return min(gate.Heard, h.state.config.Grace/2)
	}
	return min(delay+leave.Patience+2*leave.Stored, max(0, l.Ends-l.signalled)/2)
}

// due returns the wished end if it is due now. An end that the holder announces is due once the pod has left its
// Services, and the successor has answered if it must: a deletion, which needs no answer, may have ended the leave.
func (l *leaving) due(wish ending) ending {
	if wish.cause != leave.None && !l.Over || (wish.cause == leave.Turn || wish.cause == leave.Hang) && !l.Answered {
		return ending{}
	}
	return wish
}

// notAnswered learns that the pod with the wish has not answered. If nobody has answered to a hang, all wishes
// count anew.
func (l *leaving) notAnswered() {
	if l.to.Say == "" {
		l.unanswered = nil
		return
	}
	own := func(one string) bool { return one == l.to.Identity }
	l.unanswered = append(slices.DeleteFunc(slices.Clone(l.unanswered), own), l.to.Identity)
	l.unanswered = l.unanswered[max(0, len(l.unanswered)-api.MostWords):]
}

// leave decides how the pod leaves its Services before the wished end. The result is the instant of the next
// decision.
func (h *hold) leave(ctx context.Context, s elector.State, wish ending, serves bool) time.Duration {
	now, l := h.state.now, &h.leaving
	cause, to := wish.cause, wish.to
	signalled, preStop := h.stopSignals()
	readAt := pace.Never
	if signalled && l.signalled == 0 {
		readAt = l.lastRead + h.state.self.Budget.Retry
	}
	if now >= readAt {
		l.signalled, l.lastRead, readAt = now, now, pace.Never
		h.readDeletion(ctx)
	}
	if signalled && !l.Restarts() {
		cause = leave.Deletion
		to = h.state.rollout.pod.Deleted(now, h.turns)
	}
	f := leave.Facts{
		Cause: cause, Successor: to.Identity, EndpointDelay: h.state.endpointDelay(),
		Ready: serves && (h.state.stored.ready || h.state.readiness.Postponed(now)) && h.state.rollout.heard.sees, Unready: h.state.stored.known && !h.state.stored.ready,
		Replaced: h.state.replaced(), Alone: h.state.rollout.heard.aloneIn(h.id), Answers: h.state.rollout.heard.about(l.id, false),
		PreStop: preStop, Serving: !s.Serving.IsZero(), Grace: l.Grace,
	}
	if l.id == s.Leave {
		f.Says = s.Leaving
	}
	out, says := l.Out, l.Says
	if l.Says == "" {
		l.id, l.to = h.id+"."+strconv.FormatInt(now.Milliseconds(), 10), to
		l.lookAt = now + leave.Another/2
	}
	l.Decision = l.leave.Next(now, f)
	if l.Withdrawn {
		h.state.config.Log.Info("nobody answered, so the hold goes on", "hold", h.id, "successor", to.Identity)
		l.notAnswered()
		l.pause = min(max(leave.Pause, 2*l.pause), leave.LongestPause)
		l.announcesAt = now + l.pause
	}
	if asked, _ := api.Asked(says); cause == leave.Deletion && asked != "" && l.Says != says && !l.Answered {
		l.notAnswered()
	}
	if l.Restarts() && !signalled {
		l.signalled, l.Known = 0, false // the next stop signal may belong to a deletion
	}
	if l.Out && !out {
		h.state.config.Log.Info("leaving the Services", "hold", h.id, "successor", l.Successor)
	}
	wake := min(l.Wake, readAt)
	if l.announcesAt > now {
		wake = min(wake, l.announcesAt)
	}
	if _, soon := api.Asked(l.Says); soon && !l.Answered {
		if now >= l.lookAt { // the watch may be silent
			l.lookAt = pace.Never
			h.state.group.Go(func() { _ = h.state.readWords(ctx, api.NextLease(h.slots[0])) })
		}
		wake = min(wake, l.lookAt)
	}
	return wake
}

// stopSignals reports whether the kubelet has signalled a shim of the hold, and whether a shim
// still runs the preStop hook.
func (h *hold) stopSignals() (signalled, preStop bool) {
	for _, r := range h.state.shims.Reports() {
		if r.Stopping && r.Phase == gate.Running && r.Hold == h.id {
			signalled, preStop = true, preStop || r.PreStop
		}
	}
	return signalled, preStop
}

// readDeletion reads the pod until the API server answers. The stop signal alone does not prove a deletion,
// because the kubelet also stops a container that fails its liveness probe.
func (h *hold) readDeletion(ctx context.Context) {
	h.state.group.Go(func() {
		h.state.readGrace(ctx, func(sent time.Duration, pod kube.Pod) {
			h.leaving.Grace = leave.Grace{Known: true, Deleted: pod.Deleted, Ends: sent + pod.GraceLeft}
			h.state.deletion.learn("", pod.Deleted)
		})
	})
}

// ending is the end of a hold.
type ending struct {
	// cause is the cause of an end that the holder announces; [leave.None] for every other.
	cause leave.Cause
	// why is nil as long as the hold goes on.
	why *ends.Row
	// to is the wish of the successor; only its identity if a person has named it, and zero for no successor.
	to api.Word
}

// learnTurn stores whether the children serve, since when, whether a person has paused the slot, and the wishes
// of other pods. The wish for which the holder has announced its end comes first until the announcement is
// withdrawn, although the answer has replaced it. The wishes of pods that did not answer come last.
func (h *hold) learnTurn(now, since time.Duration, serves, paused bool) {
	if serves && !h.turns.Serves {
		h.turns.Serving, h.turns.Failing = since, 0
	} else if !serves && h.turns.Serves {
		h.turns.Failing = now
		if now >= h.turns.Serving+api.TurnProof {
			h.turns.Stopped = now
		}
	}
	h.turns.Serves, h.turns.Paused, h.turns.Alone = serves, paused, h.state.rollout.heard.aloneIn(h.id)
	h.turns.Wishes, h.turns.Unanswered = h.state.rollout.heard.about(h.id, true), h.leaving.unanswered
	slices.SortStableFunc(h.turns.Wishes, func(a, b api.Word) int {
		return slices.Index(h.leaving.unanswered, a.Identity) - slices.Index(h.leaving.unanswered, b.Identity)
	})
	if h.leaving.Says != "" && h.leaving.to.Say != "" {
		h.turns.Wishes = slices.Insert(h.turns.Wishes, 0, h.leaving.to)
	}
}

// hangsFirst reports whether the holder announces that its application hangs, and not that it yields to a
// wish, because the last announcement for that wish had no answer.
func (h *hold) hangsFirst() bool {
	announces := h.leaving.Says != "" && h.leaving.to == h.turn.To
	return h.turn.Hangs && slices.Contains(h.leaving.unanswered, h.turn.To.Identity) && !announces
}

// failed reports whether the pod's own application, or what it needs to run here, has ended the hold, and the pod
// goes on. The kubelet restarts a container whatever its exit code is, and also after a failed liveness probe, so
// each end without an order counts.
func (h *hold) failed() bool { return h.end.why.Blame == ends.Application && h.state.mayHold() }

// releaseTo stores the value of [api.RolloutAnnotation] for the releasing write, and returns the pod that the
// write names as successor. Without a successor, a pod that is about to end yields to a pod that wishes for the slot.
func (h *hold) releaseTo() (successor string) {
	if !h.state.rollout.takesTurns() && !h.end.why.Hangs {
		return h.end.to.Identity
	}
	slot := slotOf(h.record())
	slot.Hold, slot.Rollout = h.turns.ID, h.turns.Rollout
	switch {
	case h.end.why.Hangs:
		slot.Rollout = h.state.rollout.pod.Hung(h.turns)
	case h.failed() && h.state.rollout.waiting.Preferred:
		slot.Rollout.Hung = h.state.self.Identity // agents of earlier versions know this word only
	}
	slot.Rollout.Transitions = h.record().Transitions
	to := h.end.to
	if to.Identity == "" && !h.state.mayHold() {
		to = h.state.rollout.pod.Deleted(h.state.now, h.turns)
	}
	revision := to.Revision
	if revision.Same(h.state.rollout.pod.Revision) {
		revision = api.Revision{} // a preference is no turn
	}
	left, successor := h.state.rollout.pod.Released(slot, to.Identity, revision)
	left.Moved = api.Moved{From: h.state.self.Identity, Why: h.end.why.Reason, Wish: to.Say}
	h.state.rollout.released, h.state.rollout.releasedText = h.turns.ID, left.String()
	h.state.rollout.waiting.Failed = h.turns.Rollout.Yielder != ""
	return successor
}
