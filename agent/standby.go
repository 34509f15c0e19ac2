// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/agent/ends"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/leave"
	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/agent/status"
	"github.com/metaparticle-io/metaparticle/agent/turn"
	"github.com/metaparticle-io/metaparticle/api"
)

// standby is the state of an agent that waits for its slots.
type standby struct{ state *state }

// run waits for the slots, and returns the hold once all slots are acquired. If a stopping
// agent has nothing left to do, both results are nil.
//
// After each event the standby decides, acts and shows, in this order. The actions depend on the
// decision, and the status also shows what the claim has just done.
func (s standby) run(ctx context.Context) (*hold, error) {
	defer s.state.speaker.silent()
	for {
		s.drainOrphans()
		views := s.state.claim.Views()
		lingersUntil := s.state.lingerOn(ctx, views) // a lingering standby competes for no slot, as the facts report
		d := s.decide(views)
		s.checkAhead(ctx, views, d.standing)
		s.state.waits.learn(s.state.now, views)
		s.state.waits.skipIfBusy(s.state.now, views)
		facts := s.facts(views, d.standing)
		s.state.supporting.competes = facts.Compete
		s.state.metrics.Vacant(s.vacant(facts, views))
		wake := s.act(ctx, facts, d)
		switch state := s.state.claim.State(); state.Stage {
		case elector.Held:
			return newHold(s.state, state), nil
		case elector.Done:
			if s.state.starts.done() {
				return nil, nil
			}
		case elector.Waiting:
		}
		wake = min(wake, lingersUntil, s.show(ctx, d.standing, facts.Settled), s.tellUnheard(views))
		if err := s.state.wait(ctx, wake); err != nil {
			return nil, err
		}
	}
}

// unheardAfter is the time from the start of the agent until the application's log says that the API server has not
// answered. Enroll usually makes a Lease and the right to read it within a second.
const unheardAfter = 20 * time.Second

// unheard is the line in the log of an application whose agent has not read its Leases. People look there first.
const unheard = "the agent has read no Lease for 20 s, so the application does not start. The agent's log has the cause: " +
	"kubectl logs POD -c " + api.AgentContainer + ". Often a network policy forbids egress to the API server: " +
	api.Repository + "docs/operate/network.md#egress-of-gated-pods"

// tellUnheard tells the waiting shims' logs that the agent has seen none of its slots. The result is the instant of
// the next decision.
func (s standby) tellUnheard(views []elector.View) time.Duration {
	seen := func(v elector.View) bool { return v.Known }
	if s.state.config.Shims == nil || s.state.config.slotless() || slices.ContainsFunc(views, seen) {
		return pace.Never
	}
	if at := s.state.began + unheardAfter; s.state.now < at {
		return at
	}
	for _, r := range s.state.shims.Reports() {
		s.state.orders.notify(r, unheard)
	}
	return pace.Never
}

// standbyDecision is the standby's decision after one event.
type standbyDecision struct {
	// standing is the decision of package turn, changed if the start lock hinders the pod.
	standing turn.StandbyDecision
	// watchesStart reports that the pod watches its start lock, because only this lock can keep the pod from
	// asking, or from an answer to a holder that hangs. The pod watches even while the lock hinders the ask. Only
	// so the pod learns that the lock no longer hinders.
	watchesStart bool
}

// decide decides about the pod's part in the rollout, by these views of the pod's slots. The method
// sends no request.
func (s standby) decide(views []elector.View) standbyDecision {
	standing := s.state.rollout.standing(s.state.now, views, s.state.startsWhole(), s.state.stored, s.state.claim.Began)
	return standbyDecision{standing: s.hindered(standing, views), watchesStart: standing.Wish != "" || s.state.rollout.speaks && hangs(views[0])}
}

// hangs reports whether the holder announces that its application hangs, so that whoever can take the slot
// answers.
func hangs(v elector.View) bool {
	asked, soon := api.Asked(v.Record.Profile.Leaving)
	return soon && asked == "" && v.Record.Profile.Serving.IsZero()
}

// facts returns the inputs of the claim's next decision. A standby competes for no slot after a
// failed turn, or once the pod has decided to skip. The same applies once the work is done, and until
// the release that records a success or a failure is stored.
func (s standby) facts(views []elector.View, standing turn.StandbyDecision) elector.Facts {
	f := s.state.baseFacts()
	f.Compete = f.Compete && !standing.Failed && !s.state.waits.skips() && !s.state.waits.done && !s.state.owesRecord(views)
	f.Settled = s.state.waits.done && !f.Alive
	f.TakeFrom = max(standing.TakeFrom, s.state.waits.retryAt, s.state.grantsAt)
	if s.state.now < s.state.rollout.hungUntil { // other pods go first, as after a turn that has failed
		f.TakeFrom = max(f.TakeFrom, min(s.state.rollout.hungUntil, min(views[0].FreeAt, s.state.rollout.hungUntil)+turn.LastResort))
	}
	return f
}

// act sends the requests for the slots and for the start lock. The result is the instant of the next
// decision.
func (s standby) act(ctx context.Context, f elector.Facts, d standbyDecision) (wake time.Duration) {
	_, wake = s.state.claim.Step(ctx, s.state.now, f, s.state.outcome)
	return min(wake, d.standing.Wake, s.state.starts.act(ctx, s.state.now, startFacts{asks: d.watchesStart}))
}

// show writes the pod's status, and what the pod says to the holder. Then show dismisses the shims that
// have waited for long enough. The views come from after the requests, because act may have changed
// them. The result is the instant of the next decision.
func (s standby) show(ctx context.Context, standing turn.StandbyDecision, settled bool) (wake time.Duration) {
	now, wake := s.state.now, pace.Never
	views := s.state.claim.Views()
	effect := effectOf(standing, s.state.speaker.err)
	effect.Beyond = s.state.readyBeyond(views)
	decided := s.state.readiness.Standby(now, views, effect, !s.state.shims.Alive())
	if settled {
		decided = status.Done(s.state.waits.work())
	} else if now < s.state.waits.retryAt {
		decided, wake = status.Failed(s.state.waits.failed()), s.state.waits.retryAt
	}
	wake = min(wake, s.speak(ctx, decided, standing, views), s.state.supporting.tryWrites(ctx))
	return min(wake, s.state.waits.dismiss(now), s.state.publish(ctx, decided))
}

// hindered returns the decision of package turn, changed if the start lock keeps the pod from
// starting. The pod then has no wish, and answers no announcement that asks it.
func (s standby) hindered(standing turn.StandbyDecision, views []elector.View) turn.StandbyDecision {
	if standing.Wish == "" {
		return standing
	}
	if why := s.state.starts.hinders(s.state.now, views[0].Record.Holder); why != "" {
		standing.Wish, standing.Reason = "", api.ReasonWaitsForItsTurn
		standing.Message = fmt.Sprintf("%s, so revision %d does not ask yet", why, s.state.rollout.pod.Revision.Number)
	}
	return standing
}

// checkAhead checks for the pod's deletion, if this standby expects a slot after the present hold. A
// standby expects the slot while the standby wishes for it. A standby also expects the slot once a person, or the
// leaving holder, has named the standby as successor, or asked it. The check for an announcement comes after
// that for the wish, which may be old by then.
func (s standby) checkAhead(ctx context.Context, views []elector.View, standing turn.StandbyDecision) {
	for _, v := range views {
		occasion := v.Record.Hold
		if asked, _ := api.Asked(v.Record.Profile.Leaving); asked == s.state.self.Identity {
			occasion = v.Record.Profile.Leave
		}
		if (s.named(v) || standing.Wish != "") && !v.Mine && s.state.deletion.expect(v.Slot, occasion, s.state.now) {
			s.state.sendCheckAhead(ctx)
		}
	}
}

// named reports whether a person, or the leaving holder, has named this pod as successor, or asked it.
func (s standby) named(v elector.View) bool {
	own, leaving := s.state.self.Identity, v.Record.Profile.Leaving
	asked, _ := api.Asked(leaving)
	return s.byPerson(v) || leaving == own || asked == own
}

// byPerson reports whether a person has named this pod as the successor of the present hold.
func (s standby) byPerson(v elector.View) bool {
	return v.Record.Yield.Hold == v.Record.Hold && v.Record.Yield.Successor == s.state.self.Identity
}

// vacant reports whether the pod competes for slots that, as far as the pod knows, no living pod
// holds. A holder counts as living until its Lease expires. A shut slot is not vacant. While a child
// of this pod lives, or the pod waits after a failure, the result is false.
func (s standby) vacant(f elector.Facts, views []elector.View) bool {
	now := s.state.now
	taken := func(v elector.View) bool {
		return v.Shut || s.unheard(v) || v.Known && v.Record.Holder != "" && !v.Mine && now < v.ExpiresAt
	}
	free := 0
	for _, v := range views {
		if !taken(v) {
			free++
		}
	}
	return f.Compete && !f.Alive && now >= s.state.waits.retryAt && free > 0 && s.state.config.Enough(free)
}

// lookTime is the time that a look gets for its answer after a lease duration without news.
// After a refused write, a pod may wait for a whole lease duration before its next look. Until
// the answer to that look, a vacant slot must still count as vacant.
const lookTime = 5 * time.Second

// unheard reports whether the pod has no watch of the slot, and has heard nothing about the slot
// for a lease duration. Without a connection to the API server a pod sees no renewals, so the
// holder may be alive. If the Lease states a shorter duration than that of this pod, the shorter
// duration counts.
func (s standby) unheard(v elector.View) bool {
	duration := s.state.self.Budget.Duration
	if v.Record.Duration > 0 {
		duration = min(duration, v.Record.Duration)
	}
	return v.FreeAt == pace.Never && s.state.now >= v.Heard+duration+lookTime
}

// effectOf converts the decision of package turn about a standby into its effect on the pod's
// readiness. The argument "unwritten" is the error of the last write of the pod's wish; nil for none.
// The message contains that error.
func effectOf(s turn.StandbyDecision, unwritten error) status.Turn {
	t := status.Turn{Ready: s.Ready, NotReady: s.NotReady, Reason: s.Reason, Message: s.Message}
	if s.Wish != "" && unwritten != nil {
		t.Message += ", but cannot write that: " + unwritten.Error()
	}
	return t
}

// readyBeyond returns how much longer than [status.Handover] a standby of a strict controller stays
// Ready while no holder serves. The result is the longer of two times: the pod's grace, and the
// time that an application has in a turn to start. Without a strict controller, or without
// turns, the result is zero.
func (s *state) readyBeyond(views []elector.View) time.Duration {
	if !s.config.ReplacesUnready || !s.rollout.takesTurns() {
		return 0
	}
	return max(s.config.Grace, s.rollout.pod.Lasts(slotOf(*views[0].Record).Rollout.Start()))
}

// drainOrphans drains the children whose hold is lost or in doubt. A hold is lost if the Lease
// no longer names it. A hold is in doubt if an earlier shim may have a child of that hold. While
// the agent does not see the Lease, no hold counts as lost, because each child dies at its
// deadline anyway.
func (s standby) drainOrphans() {
	for _, r := range s.state.shims.Reports() {
		if !r.HasChild() {
			continue
		}
		reason := ""
		if s.state.shims.Doubted(r.Hold) {
			reason = ends.Unproven.Reason
		}
		lost, taken := s.state.claim.Lost(childOf(r))
		if lost {
			reason = ends.Lost.Reason
		}
		switch {
		case taken:
			s.state.orders.kill(r, reason)
		case reason != "" && r.Phase == gate.Running:
			s.state.orders.drain(r, r.Hold, reason, s.state.self.Budget.Drain)
		}
	}
}

// speak says to the holder of the slot what this standby has to say now: a wish for the slot, or an answer
// to the holder's announcement. The result is the instant of the next decision.
func (s standby) speak(ctx context.Context, d status.Decision, standing turn.StandbyDecision, views []elector.View) (wake time.Duration) {
	if !s.state.rollout.speaks {
		return pace.Never
	}
	v := views[0]
	to, say, wake := v.Record.Profile.Leave, api.Say(""), pace.Never
	switch {
	case !v.Known || v.Mine || v.Record.Holder == "" || s.state.now >= v.ExpiresAt:
	case to == "":
		if to, say = v.Record.Hold, standing.Wish; say == "" && s.state.supporting.offers(v) {
			say = api.Supports
		}
	default:
		say, wake = s.answer(d, standing, v)
	}
	// Most of many standbys find enough answers, and need not write. A pod that is asked answers first,
	// because the holder waits for it.
	spread := time.Duration(0)
	if !say.Wish() && say != api.Prepared && !s.named(v) {
		spread = leave.Spread
	}
	if say == api.Supports {
		spread = s.state.self.Budget.Renew
	}
	return min(wake, s.state.speaker.say(ctx, say, to, spread, s.named(v)))
}

// answer returns what this standby says to the announcement of the holder; empty for nothing.
func (s standby) answer(d status.Decision, standing turn.StandbyDecision, v elector.View) (say api.Say, wake time.Duration) {
	now, holder, own := s.state.now, v.Record.Profile, s.state.config.Revision
	asked, soon := api.Asked(holder.Leaving)
	forwards := holder.Workload == s.state.config.Workload && len(s.state.config.Ports) > 0
	f := leave.Standby{
		Asked: asked == s.state.self.Identity, ByPerson: s.byPerson(v), Follows: holder.Leaving == s.state.self.Identity,
		Soon: soon, Serves: !holder.Serving.IsZero(), Hangs: hangs(v),
		Able: s.state.startsWhole() && now >= s.state.rollout.hungUntil, Free: standing.TakeFrom == 0,
		Wishes:       standing.Wish != "" && s.state.deletion.clearedAhead(now),
		Stays:        forwards && s.state.stored.ready && (d.Ready || d.Keep) && s.state.mayHold(),
		Lingers:      forwards && s.state.linger.on,
		SameRevision: holder.Revision.Same(own),
		Turns:        s.state.rollout.takesTurns() && holder.Revision.Workload == own.Workload && !holder.Revision.Same(own),
		Hindered:     s.state.starts.hinders(now, v.Record.Holder) != "", PreparedAt: s.preparedAt(),
	}
	if s.state.speaker.word.To == holder.Leave {
		f.Said = s.state.speaker.word.Say
	}
	return leave.Answer(now, f)
}

// preparedAt returns the instant at which no node sends connections to this pod any more; [pace.Never]
// while the pod is Ready.
func (s standby) preparedAt() time.Duration {
	if !s.state.stored.known || s.state.stored.ready {
		return pace.Never
	}
	idle := time.Duration(math.MaxInt64)
	if s.state.config.Forwarder != nil {
		idle = s.state.config.Forwarder.Idle()
	}
	return leave.PreparedAt(s.state.stored.since, s.state.now-idle, s.state.config.EndpointDelay)
}
