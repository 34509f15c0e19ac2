// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"time"

	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/agent/turn"
	"github.com/metaparticle-io/metaparticle/api"
)

// share is a hold's part in a rollout.
type share struct {
	rollout *rollout
	// facts are the inputs of the decisions about the hold. The next renewal writes
	// their Rollout.
	facts turn.Hold
}

// note notes whether the children serve since that instant, and whether a person has paused
// the slot.
func (s *share) note(now, since time.Duration, serves, paused bool) {
	if serves && !s.facts.Serves {
		s.facts.Serving = since
	} else if !serves && s.facts.Serves && now >= s.facts.Serving+turn.Proof {
		s.facts.Stopped = now
	}
	s.facts.Serves, s.facts.Paused, s.facts.Ask = serves, paused, s.rollout.asks.last
}

// decide returns the decision by the order of revisions about the hold.
func (s *share) decide(now time.Duration, wall time.Time) turn.Holder {
	if !s.rollout.ordered() {
		return turn.Holder{Wake: turn.Never}
	}
	got := s.rollout.pod.Hold(now, wall, s.facts)
	s.facts.Rollout = got.Rollout
	return got
}

// part notes the text about the order of revisions for the release of the record, and
// returns the pod that the release names. If to is not empty, the release names that
// pod, and revision is its revision. Otherwise a pod that does not stay yields to the
// pod that asks.
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
