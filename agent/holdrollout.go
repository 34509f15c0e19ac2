// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"time"

	"github.com/metaparticle-io/metaparticle/agent/instant"
	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/agent/turn"
	"github.com/metaparticle-io/metaparticle/api"
)

// holdRollout has what package turn needs to know about a hold.
type holdRollout struct {
	rollout *rollout
	// facts are the inputs of package turn's decisions. The next renewal writes facts.Rollout.
	facts turn.HolderFacts
}

// learn stores whether the children serve, the instant since which they serve, whether a person has
// paused the slot, and the last ask. If children that have served for at least [turn.Proof] stop
// serving, learn also stores the present instant.
func (h *holdRollout) learn(now, since time.Duration, serves, paused bool) {
	if serves && !h.facts.Serves {
		h.facts.Serving = since
	} else if !serves && h.facts.Serves && now >= h.facts.Serving+turn.Proof {
		h.facts.Stopped = now
	}
	h.facts.Serves, h.facts.Paused, h.facts.Ask = serves, paused, h.rollout.asks.last
}

// decide returns package turn's decision about the hold. For a pod that takes no turns, only the
// field Wake is set, to [instant.Never].
func (h *holdRollout) decide(now time.Duration, wall time.Time) turn.HolderDecision {
	if !h.rollout.takesTurns() {
		return turn.HolderDecision{Wake: instant.Never}
	}
	got := h.rollout.pod.Holder(now, wall, h.facts)
	h.facts.Rollout = got.Rollout
	return got
}

// text returns the value of [api.RolloutAnnotation] for a renewal that replaces the record. A person may
// have changed the number of transitions during the hold. With another number than that of the Lease,
// the text would count as outdated for the rest of the hold.
func (h *holdRollout) text(r lease.Record) string {
	h.facts.Rollout.Transitions = r.Transitions
	return h.facts.Rollout.String()
}

// release stores the value of [api.RolloutAnnotation] for the releasing write, and returns the pod
// that the write names as successor. If the argument "to" names a pod, that pod is the
// successor, and the argument "revision" is its revision. If "to" is empty, a pod that is about
// to end yields to the pod that asks.
func (h *holdRollout) release(now time.Duration, r lease.Record, to string, revision api.Revision, mayHold bool) (successor string) {
	if !h.rollout.takesTurns() {
		return to
	}
	slot := slotOf(r)
	slot.Hold, slot.Rollout = h.facts.ID, h.facts.Rollout
	if to == "" && !mayHold {
		h.facts.Ask = h.rollout.asks.last
		to, revision = h.rollout.pod.Deleted(now, h.facts)
	}
	left, successor := h.rollout.pod.Released(slot, to, revision)
	h.rollout.released = releaseText{hold: h.facts.ID, text: left.String()}
	h.rollout.waiting = turn.StandbyFacts{Failed: h.facts.Rollout.Yielder != ""}
	return successor
}
