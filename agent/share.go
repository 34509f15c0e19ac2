// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"time"

	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/agent/turn"
	"github.com/metaparticle-io/metaparticle/api"
)

// share is a hold's share in a rollout.
type share struct {
	rollout *rollout
	// facts are what the decisions about the hold depend on. Their Rollout is what the
	// next renewal says.
	facts turn.Hold
}

// note notes whether the children serve, and whether a person has paused the slot.
func (s *share) note(now time.Duration, serves, paused bool) {
	if serves && !s.facts.Serves {
		s.facts.Serving = now
	} else if !serves && s.facts.Serves && now >= s.facts.Serving+turn.Proof {
		s.facts.Stopped = now
	}
	s.facts.Serves, s.facts.Paused, s.facts.Ask = serves, paused, s.rollout.asks.last
}

// decide returns what the order of revisions says about the hold.
func (s *share) decide(now time.Duration, wall time.Time) turn.Holder {
	if !s.rollout.ordered() {
		return turn.Holder{Wake: turn.Never}
	}
	got := s.rollout.pod.Hold(now, wall, s.facts)
	s.facts.Rollout = got.Rollout
	return got
}

// part notes what the release of the record says about the order, and returns the pod
// that the release names. If to is not empty, the release yields to that pod, which has the
// revision. A pod that does not stay yields to the pod that asks.
func (s *share) part(now time.Duration, r lease.Record, to string, revision api.Revision, stays bool) (successor string) {
	if !s.rollout.ordered() {
		return to
	}
	slot := slotOf(r)
	slot.Hold, slot.Rollout = s.facts.ID, s.facts.Rollout
	if to == "" && !stays {
		s.facts.Ask = s.rollout.asks.last
		to, revision = s.rollout.pod.Deleted(now, s.facts)
	}
	left, successor := s.rollout.pod.Released(slot, to, revision)
	s.rollout.parting = parting{hold: s.facts.ID, text: left.String()}
	s.rollout.waiting = turn.Facts{Failed: s.facts.Rollout.Yielder != ""}
	return successor
}
