// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"context"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/agent/ends"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/agent/leave"
	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/agent/status"
	"github.com/metaparticle-io/metaparticle/agent/turn"
	"github.com/metaparticle-io/metaparticle/api"
)

// hold is the state of an agent that holds all slots that the pod needs.
type hold struct {
	state *state

	id    string
	slots []string
	since time.Duration
	// serving is the wall clock's time since which the children of the hold run and pass their
	// probes. The field "served" reports that the children already ran and passed their probes
	// under an earlier agent process.
	serving time.Time
	served  bool
	// resumed reports that an earlier agent process began the hold.
	resumed bool
	// refused reports that the last attempt to send a first grant failed with [gate.ErrNotNoted], or
	// that the pod's course could not be stored on disk.
	refused bool
	// disrupts reports that the end of the hold ends the pod.
	disrupts bool
	// gap is the instant since which the hold waits for the pod's next container, because an
	// init container has succeeded; zero without such a wait.
	gap time.Duration
	// paused is the pause about which the agent has already written an Event.
	paused elector.Pause
	// turns are the inputs of package turn's decisions about this hold, of which the field "turn" is the last.
	// The next renewal writes turns.Rollout.
	turns turn.HolderFacts
	turn  turn.HolderDecision
	// ride decides whether a planned end waits for the API server.
	ride ride
	// supporters are the standbys that have offered to support the hold, by their IDs.
	supporters map[string]*supporter
	// leaving has the decisions about how the pod leaves its Services before the hold ends.
	leaving leaving
	// end is why the hold ends, and orderedAt the instant at which its drain began.
	end       ending
	orderedAt time.Duration
}

// newHold returns the hold of the slots that the claim has acquired or resumed. The caller begins the
// hold by [hold.begin].
func newHold(s *state, claimed elector.State) *hold {
	h := &hold{state: s, id: claimed.Hold, slots: slotsOf(claimed), since: s.now, resumed: claimed.Resumed, supporters: map[string]*supporter{}}
	h.turns = turn.HolderFacts{
		ID: h.id, Since: h.since, Resumed: h.resumed, Rollout: slotOf(h.record()).Rollout,
		YieldAfter: s.config.YieldAfter, Prefers: s.config.Preferred == PrefersOthers,
	}
	if h.resumed {
		h.serving = claimed.Serving
		h.turns.Failing = s.now // until the first answer of a probe
		h.served = !h.serving.IsZero()
		if h.turns.Served = h.served; !h.served {
			// The application hung under the earlier agent process, or still has time to begin to serve.
			h.turns.Failing += s.rollout.pod.Lasts(h.turns.Rollout.Start())
		}
	}
	if h.turns.Rollout.Yielder != "" {
		h.turns.TurnSince = s.rollout.turnBegan
	}
	return h
}

// begin stores in the agent's state what the beginning of a hold changes there. So newHold only reads it.
func (h *hold) begin() {
	h.state.unrenewedSince = 0
	if h.resumed {
		h.state.deletion.answeredIn = h.id // the earlier agent process has checked whether the pod is being deleted
	}
	h.state.rollout.turnBegan = cmp.Or(h.turns.TurnSince, h.since)
	// A yield that was requested before this hold began does not count.
	h.state.yielding = false
	h.state.rollout.heard = heard{}
}

// record returns the Lease of the first slot; the zero value for a hold without slots.
func (h *hold) record() lease.Record {
	if h.state.config.slotless() {
		return lease.Record{}
	}
	return h.state.claim.Record(h.slots[0])
}

// run grants and renews until something ends the hold, and stores the reason of the end.
func (h *hold) run(ctx context.Context) error {
	state := h.state.claim.State()
	h.state.readiness.Close()
	switch {
	case h.state.config.slotless():
	case h.resumed:
		h.state.config.Log.Info("resumed", "hold", h.id, "slots", state.Tokens, "deadline", state.Deadline)
	default:
		h.state.metrics.Acquired()
		h.state.config.Log.Info("acquired", "hold", h.id, "slots", state.Tokens, "deadline", state.Deadline)
		h.state.events.Acquired(state.Tokens)
	}
	if h.state.checked != h.id && !h.resumed && !h.state.config.slotless() {
		h.state.checkDeletion(ctx, h.id)
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	for {
		state = h.state.claim.State()
		if !h.state.config.slotless() {
			h.state.metrics.Holding(state.Deadline)
			h.state.metrics.Supporters(h.supports(state))
		}
		h.tellPause(state)
		decideAt := h.decide(running, state)
		end, endsAt := h.ends(state)
		if end.why != nil {
			h.end = end
			h.conclude(ctx, state)
			return nil
		}
		if err := h.state.wait(ctx, min(decideAt, endsAt, h.act(ctx, state))); err != nil {
			return err
		}
	}
}

// decide decides about the hold's part in a rollout, and then how the pod leaves its Services. Both
// decisions depend on the probes, and the second one depends on the first one. The result is the
// instant of the next decision.
func (h *hold) decide(ctx context.Context, s elector.State) time.Duration {
	now := h.state.now
	h.learnGap()
	h.followChildren()
	h.learnTurn(now, servesSince(h), h.serves() && h.state.complete(h.id), s.Paused.Slot != "")
	h.turn = h.state.rollout.pod.Holder(now, h.state.config.Wall(), h.turns)
	h.turns.Rollout = h.turn.Rollout
	return min(h.turn.Wake, h.leave(ctx, s, h.wish(s), h.serves()))
}

// act sends the asks of supporters, the requests for the start lock, the grants, and then the renewals, in which the holder
// says since when the application serves. Then act shows the status. The result is the instant of the
// next action.
func (h *hold) act(ctx context.Context, s elector.State) time.Duration {
	wake := min(h.ask(ctx, s), h.driveStarts(ctx, s), h.grantWaiting(s))
	if h.needed(s) {
		h.learnServing(s)
	}
	return min(wake, h.renew(ctx, s, true), h.appear(ctx, s))
}

// conclude stores what outlasts the hold, and reports, in the log, the metrics and an Event, why the hold
// ends. If the application has ended by itself, conclude also asks whether the pod is being deleted, and
// the Event of the release tells why.
func (h *hold) conclude(ctx context.Context, state elector.State) {
	h.ride = ride{} // the end waits no longer, so the drain renews only for living children
	if h.end.why.Unordered {
		h.state.ended = h.id
		h.state.learnDeletion(ctx)
	}
	if h.end.why.Pause != 0 {
		h.state.grantsAt = h.state.now + h.end.why.Pause
	}
	if state.Lost != nil {
		h.state.config.Log.Warn("slot is lost", "lease", state.Lost.Slot, "hold", h.id, "err", state.Lost.Err)
	}
	h.state.config.Log.Info("hold ends", "hold", h.id, "reason", h.end.why.Reason)
	h.state.metrics.Ends(h.end.why.Reason)
	h.state.events.Ends(h.end.why, h.slots)
	h.disrupts = h.end.why.Disrupts && h.state.config.Ends && len(h.slots) > 0 && h.state.shims.Outstanding(h.id)
}

// tellPause adds one Event for each pause of a slot of the hold.
func (h *hold) tellPause(state elector.State) {
	if state.Paused != h.paused && state.Paused.Slot != "" {
		h.state.events.Paused(pauseOf(state), state.Paused.Pause == api.PauseStop)
	}
	h.paused = state.Paused
}

// pauseOf describes the pause of a slot for people; empty without a pause.
func pauseOf(s elector.State) string { return status.PauseOf(s.Paused.Slot, s.Paused.Pause) }

// ends returns the reason why the hold must end now. If the hold goes on, the reason is empty,
// and the second result is the instant of the next decision.
func (h *hold) ends(s elector.State) (ending, time.Duration) {
	now := h.state.now
	drainAt := h.drainAt(s)
	wake, wished, outcome := drainAt, h.leaving.due(h.wish(s)), h.state.outcome(h.id)
	idle := !h.state.shims.Outstanding(h.id)
	over, refused := idle && len(h.grantable()) == 0, idle && h.refused
	if h.ride.learn(now, s.From, h.state.config.Failsafe != (api.Failsafe{}) && h.state.mayHold() && (over || refused || wished.why != nil)) {
		over, refused, wished = false, false, ending{}
	}
	switch {
	case s.Taken:
		return ending{why: ends.Taken}, 0
	case s.Lost != nil:
		return ending{why: ends.Lost}, 0
	case now >= drainAt:
		return ending{why: ends.CutOff}, 0
	case h.state.shims.Doubted(h.id):
		return ending{why: ends.Unproven}, 0
	case h.state.shims.Drained(h.id):
		return ending{why: ends.Drained}, 0
	case refused:
		return ending{why: ends.NotGranted}, 0
	case h.deletedEarly():
		return ending{why: ends.PodDeleted}, 0
	case outcome.Done != "":
		return ending{why: ends.Succeeded}, 0
	case outcome.Failed != "":
		return ending{why: ends.Ended}, 0
	case h.state.shims.Succeeded(h.id) && h.state.mayHold() && wished.why == nil:
		startsBy := h.gap + ends.StartsWithin
		if now >= startsBy {
			return ending{why: ends.NotStarted}, 0
		}
		wake = min(wake, startsBy)
	case idle && !h.state.mayHold(), over:
		return ending{why: ends.Ended}, 0
	case wished.why != nil:
		return wished, 0
	}
	return ending{}, wake
}

// drainAt returns the instant at which the drain begins, unless a renewal succeeds before that
// instant. With the gate "pod" no shim freezes the application after a leap. So until a renewal
// follows the leap, the drain begins earlier by the possible length of the pause.
func (h *hold) drainAt(s elector.State) time.Duration {
	if !h.state.config.KubeletStops || s.Renewed() {
		return s.DrainAt
	}
	return h.state.lapse.drainAt(s.DrainAt, h.state.self.Budget.RequestTimeout)
}

// wish returns the end that a person, enroll, or package turn requests. No pod may take a
// paused slot, so a yield waits for the end of the pause. With the gate "pod", only a restart by
// the kubelet stops the application. The kubelet restarts nothing in a deleted pod, so a deleted
// pod with that gate keeps its hold in any case.
func (h *hold) wish(s elector.State) ending {
	switch {
	case h.state.deletion.known && h.state.config.KubeletStops:
	case s.Closed != "":
		return ending{why: ends.ShardsChanged}
	case s.Paused.Pause == api.PauseStop:
		return ending{why: ends.Paused}
	case s.Paused.Slot != "":
	case s.Yield.Hold != "":
		return ending{cause: leave.Yield, why: ends.Yielded, to: api.Word{Identity: s.Yield.Successor}}
	case h.state.yielding && !h.state.config.slotless():
		return ending{cause: leave.Yield, why: ends.Yielded}
	case h.turn.To.Identity != "" && h.state.now >= h.leaving.announcesAt && !h.hangsFirst():
		return ending{cause: leave.Turn, why: ends.Yielded, to: h.turn.To}
	case h.turn.Hangs && h.state.now >= h.leaving.announcesAt:
		return ending{cause: leave.Hang, why: ends.Hung}
	case h.turn.Failed && h.state.mayHold():
		return ending{why: ends.TurnFailed}
	}
	return ending{}
}

// deletedEarly reports whether the pod was being deleted when the hold began, less than a lease
// duration ago. With the gate "pod", only a restart by the kubelet stops the application. The
// kubelet restarts nothing in a deleted pod, so with that gate the result is always false.
func (h *hold) deletedEarly() bool {
	return h.state.deletion.deletedIn == h.id && !h.state.config.KubeletStops && h.state.now < h.since+h.state.self.Budget.LeaseDuration()
}

// learnGap stores when an init container has succeeded under the hold. From that instant the hold
// waits until the pod's next container starts.
func (h *hold) learnGap() {
	switch {
	case !h.state.shims.Succeeded(h.id):
		h.gap = 0
	case h.gap == 0:
		h.gap = h.state.now
	}
}

// needed reports whether the hold needs renewals. A hold needs renewals while a connected shim
// may have a child of the hold. After the success of an init container, the hold needs renewals
// until the next container gets a grant. The hold also needs renewals while a first grant waits
// for the start lock, or for a renewal after a leap, and while the end of the hold waits for a renewal.
func (h *hold) needed(s elector.State) bool {
	return h.state.shims.Supported(h.id) || h.awaitsRenewal(s) || h.waitsToStart() || h.ride.since != 0
}

// renew renews each slot whose renewal is due, while the hold needs renewals. The result is the
// instant of the next renewal.
func (h *hold) renew(ctx context.Context, s elector.State, guard bool) time.Duration {
	f := h.state.baseFacts()
	f.Renew, f.Guard, f.RenewedSince = h.needed(s), guard, h.ride.since
	f.Supporters = h.listed()
	if f.Profile.Serving, f.Profile.Leaving = h.serving, h.leaving.Says; f.Profile.Leaving != "" {
		f.Profile.Leave = h.leaving.id
	}
	if h.state.rollout.takesTurns() {
		// A person may have changed the number of transitions. With another number than that of the Lease, the text
		// would count as outdated for the rest of the hold.
		h.turns.Rollout.Transitions = h.record().Transitions
		text := h.turns.Rollout.String()
		f.Rollout = &text
	}
	_, wake := h.state.claim.Step(ctx, h.state.now, f, h.state.outcome)
	return wake
}

// servesSince returns the instant at which the application began to serve, for a caller that learns
// just now that the application serves. Usually this instant is the present. But the hold may have
// served under an earlier agent process. Then the instant comes from the Lease, so that a pod in its
// turn stays Ready. If the wall clock was set meanwhile, the time from the Lease may be wrong. So
// the result is never before the start of the last child.
func servesSince(h *hold) time.Duration {
	now, known := h.state.now, h.turns.Serving != 0
	if known || !h.served || h.serving.IsZero() {
		return now
	}
	since := now - h.state.config.Wall().Sub(h.serving)
	for _, r := range h.state.shims.Reports() {
		if r.Phase == gate.Running && r.Hold == h.id {
			since = max(since, r.Since)
		}
	}
	return min(since, now)
}

// learnServing stores the wall clock's time at which the application began to serve.
func (h *hold) learnServing(s elector.State) {
	switch {
	case !h.serves(), h.leaving.Closed:
		h.serving = time.Time{}
	case h.serving.IsZero():
		h.serving = s.ServesSince(h.state.config.Wall())
	}
}

// appear shows the pod as a holder in its status. Until the check for the pod's deletion has
// ended, the status stays as it is. Most applications start within milliseconds after that check,
// so a status "Starting" would soon be out of date.
func (h *hold) appear(ctx context.Context, s elector.State) time.Duration {
	if h.state.deletion.checking() {
		return pace.Never
	}
	start := ""
	if h.waitsToStart() {
		start = h.state.starts.obstacle(h.state.now)
	}
	if h.state.config.slotless() {
		return h.state.publish(ctx, status.Starts(h.state.shims.Running(h.id), h.serves(), start))
	}
	return h.state.publish(ctx, h.state.readiness.Holder(h.state.now, status.Holder{
		Start: start,
		Hold:  h.id, Slots: h.slots, Since: h.since, Running: h.state.shims.Running(h.id), Serves: h.serves(), Served: h.served || h.turns.Serving != 0, Waits: h.state.probes.Waits(), Paused: pauseOf(s),
		Turn: h.turn.Message, Leaves: h.leaving.Out, Spared: h.turn.Starting && h.state.staysReady(),
	}))
}

// staysReady reports whether a Ready pod stays Ready although its application does not serve. A
// strict controller replaces each unready pod. So in a rollout of a broken revision, such a
// controller could replace all old pods. The caller must know that the pod's revision is proven.
func (s *state) staysReady() bool { return s.config.ReplacesUnready && s.stored.ready }

// letGo ends the hold, and the claim waits for the slots again. If all children are proven dead, the
// claim releases the slots in its next decision, unless this pod is to hold the slots again. Without that
// proof the claim keeps the slots until the proof comes, or until the Leases expire.
func (h *hold) letGo() {
	if h.end.why == nil {
		h.end.why = new(ends.Row) // the agent itself ends
	}
	h.state.metrics.Holding(0)
	h.state.probes.Follow(nil)
	if to := &h.end.to; to.Identity == "" {
		if to.Identity = h.leaving.Successor; to.Identity == h.leaving.to.Identity {
			*to = h.leaving.to
		}
	}
	successor := h.releaseTo()
	if h.failed() || h.end.why.Blame == ends.Node { // a node that was cut off may be so again and again
		h.state.rollout.waiting.Failures = h.turns.Failures(h.state.now, h.state.rollout.waiting.Failures)
	}
	part := elector.Parting{Successor: successor}
	if !h.state.shims.Proven(h.id) {
		h.state.config.Log.Warn("not released: no proof that all children are dead", "hold", h.id)
		h.state.events.NotReleased(h.slots)
	} else {
		part.GiveBack = h.end.why.GivesBack
		if h.end.why.HeadStart != nil {
			part.HeadStart = h.end.why.HeadStart(h.state.self.Budget)
		}
		if h.end.why.Hangs {
			h.state.rollout.hungUntil = h.state.now + 2*cmp.Or(h.state.config.YieldAfter, time.Minute)
		}
	}
	h.state.claim.LetGo(h.state.now, part)
}
