// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"slices"
	"time"
)

// Yields states whether a holder yields to a newer revision that asks.
type Yields string

const (
	YieldsNow   Yields = "now"   // unless [Turns.Next] names a later time for that revision
	YieldsLater Yields = "later" // the holder has not served for [TurnRest] since a yield
	YieldsNot   Yields = "no"    // a person has paused the slot
)

// Agents decide by these spans of rollouts (go doc ./agent/turn), and the webhook and the console tell people of them.
const (
	// TurnProof is how long the application must serve in a turn before its pod is Ready. After the controller's
	// minReadySeconds the revision is proven. TurnProof is not zero: without a readiness probe, even an application
	// that exits at once would serve for a moment.
	TurnProof = 10 * time.Second
	// TurnRest is how long a holder serves between two yields, whichever pod asks. An application that stops for
	// nothing, because its successor has died since its answer, does so once a minute at most.
	TurnRest = time.Minute
	// TurnForget is how long a revision must be proven before the count of its turns is removed. So while an old pod
	// is left, a revision that crashes some minutes after its start still has to wait for its next turn.
	TurnForget = 10 * time.Minute
	// PreferSettled is how long a holder serves before it yields to a preferred pod, and how long a preferred pod must
	// be Ready before it wishes for the slot. So preferences move a slot at most once in that time.
	PreferSettled = 5 * time.Minute
	// AnswerTime is how long a holder that yields waits for the answer without which it goes on.
	AnswerTime = 2 * time.Second
	// LongestTurn is the most time that an application has in its turn to begin to serve, unless its probes give
	// more. A Deployment's progressDeadlineSeconds are ten minutes by default, too.
	LongestTurn = 10 * time.Minute
)

// HangWait returns how long a hold lasts before it ends because its application hangs, by the number
// Of such ends so far: a minute, and each time twice as long, up to an hour. So a cause that is behind
// all pods, such as a dead database, does not make the slot wander.
func HangWait(count int) time.Duration { return min(time.Minute<<min(count, 6), time.Hour) }

// Rollout is what the holders' agents record of a rollout in the slot's Lease, as text ([Rollout.String]). Each write of a
// slot keeps the counts of turns, so the counts outlast a hold.
type Rollout struct {
	// Hold is the hold whose agent wrote this text; empty while the slot is released. An agent of an earlier
	// version of Metaparticle leaves the text of an earlier hold in the Lease, so the text counts only if its Hold
	// is the present hold.
	Hold string `json:"hold,omitempty"`
	// Transitions is the Lease's leaseTransitions at the write of this text; zero if unknown. A later holder
	// without turns makes a transition, and keeps this text, which is outdated then.
	Transitions int `json:"transitions,omitempty"`
	// Yields states whether the holder yields to a newer revision.
	Yields Yields `json:"yields,omitempty"`
	// Yielder is the pod that gets the slot back if the turn fails, and From its revision; empty if the hold is
	// not a turn.
	Yielder string   `json:"yielder,omitempty"`
	From    Revision `json:"from,omitzero"`
	// Proven is the last proven revision. StartMilliseconds is the time until it served; zero if unknown.
	Proven            Revision `json:"proven,omitzero"`
	StartMilliseconds int64    `json:"startMilliseconds,omitempty"`
	// Prefers reports that the holder yields to a preferred pod of its revision now.
	Prefers bool `json:"prefers,omitempty"`
	// Hangs is the number of holds that have ended because their application hung, since an application
	// last served for [TurnForget]. Hung is the pod whose application hung last, or a preferred pod whose application
	// has failed otherwise since: it is not preferred for now.
	Hangs int    `json:"hangs,omitempty"`
	Hung  string `json:"hung,omitempty"`
	// Moved tells people why the slot moved last; the zero value if its last holder, another pod, has
	// not released it.
	Moved Moved `json:"moved,omitzero"`
	// Turns has one count of turns for each revision, in the order of their last turns.
	Turns []Turns `json:"turns,omitempty"`
}

// Moved states which pod released the slot last, the reason for which its hold ended, and the wish to which it
// yielded; empty without a wish.
type Moved struct {
	From string `json:"from,omitempty"`
	Why  string `json:"why,omitempty"`
	Wish Say    `json:"wish,omitempty"`
}

// Turns is the number of turns of one revision.
type Turns struct {
	// If a person applies an old template again, its Revision has a new number, so its count begins at zero.
	Revision Revision `json:"revision"`
	Count    int      `json:"count"`
	// Next is the time of the next turn, by the wall clock; zero if the revision need not wait.
	Next time.Time `json:"next,omitzero"`
}

// rememberedTurns bounds the number of revisions whose turns a Lease counts. Four are enough for two
// workloads that share a lock, with two rollouts each.
const rememberedTurns = 4

// MostTurns bounds the count of turns that a text may state: a user can write any number into a Lease, and one
// more than the largest integer would be negative, which makes the text unreadable.
const MostTurns = 1_000_000

// longestRollout bounds the text of a rollout, in bytes. The policy on Leases lets a pod write more, and then every
// write of an honest holder, which adds its own part, would be refused for ever. JSON may need six bytes for one.
// The longest text of an agent has about 2,800 bytes.
const longestRollout = 4096

// String returns the text for the Lease; empty for the zero rollout.
func (r Rollout) String() string {
	out, err := json.Marshal(r)
	if err != nil || string(out) == "{}" {
		return ""
	}
	return string(out)
}

// ParseRollout reads a text that [Rollout.String] has written. Any other text is the zero rollout, with which pods take
// no turns.
func ParseRollout(s string) Rollout {
	var r Rollout
	if s == "" || len(s) > longestRollout || json.Unmarshal([]byte(s), &r) != nil || len(r.String()) > longestRollout ||
		r.StartMilliseconds < 0 || r.StartMilliseconds > LongestTurn.Milliseconds() || r.Transitions < 0 || len(r.Turns) > rememberedTurns {
		return Rollout{}
	}
	r.Hangs = min(max(0, r.Hangs), MostTurns)
	for i, c := range r.Turns {
		if c.Count < 1 {
			return Rollout{}
		}
		r.Turns[i].Count = min(c.Count, MostTurns)
	}
	return r
}

// Current returns the rollout for a Lease with these leaseTransitions: the zero rollout if the text is outdated, because
// its revisions may have been replaced since.
func (r Rollout) Current(transitions int) Rollout {
	if r.Transitions != 0 && r.Transitions != transitions {
		return Rollout{}
	}
	return r
}

// Start returns the time that the proven revision needed until it served; zero if that is unknown.
func (r Rollout) Start() time.Duration { return time.Duration(r.StartMilliseconds) * time.Millisecond }

// Of returns the turns of the revision; none if the rollout does not list it.
func (r Rollout) Of(revision Revision) Turns {
	for _, one := range r.Turns {
		if one.Revision == revision {
			return one
		}
	}
	return Turns{Revision: revision}
}

// Counted returns the rollout with one more turn of the revision.
func (r Rollout) Counted(revision Revision) Rollout {
	one := r.Of(revision)
	one.Count++
	r.Turns = append(slices.DeleteFunc(slices.Clone(r.Turns), func(t Turns) bool { return t.Revision == revision }), one)
	r.Turns = r.Turns[max(0, len(r.Turns)-rememberedTurns):]
	return r
}

// Forgotten returns the rollout without hangs, and without the turns of the proven revision and of older ones.
func (r Rollout) Forgotten(proven Revision) Rollout {
	r.Hangs, r.Hung = 0, ""
	r.Turns = slices.DeleteFunc(slices.Clone(r.Turns), func(t Turns) bool {
		return t.Revision.Workload == proven.Workload && t.Revision.Number <= proven.Number
	})
	return r
}

// InTurn reports whether the hold is a turn whose revision is not proven yet.
func (r Rollout) InTurn(hold string) bool { return r.Yielder != "" && hold != "" && r.Hold == hold }

// Unproven reports whether the hold is a turn, or the holder's revision is newer than the proven
// one. The second case is a hold of a slot that was free.
func (r Rollout) Unproven(hold string, holder Revision) bool {
	return r.InTurn(hold) || holder.NewerThan(r.Proven)
}

// Reclaimed reports whether a pod of the proven revision may ask for the slot of a newer holder that has taken a
// free slot, so that no old pod has yielded to it. An old pod that was only late would otherwise wait for ever
// behind a broken version.
func (r Rollout) Reclaimed(hold string, holder, by Revision) bool {
	return by.Same(r.Proven) && holder.NewerThan(by) && !r.InTurn(hold)
}

// Lasting returns the part of the rollout that outlasts a hold.
func (r Rollout) Lasting() Rollout {
	last := Rollout{
		Transitions: r.Transitions, Proven: r.Proven, StartMilliseconds: r.StartMilliseconds, Hangs: r.Hangs, Hung: r.Hung, Turns: slices.Clone(r.Turns),
	}
	for i := range last.Turns {
		last.Turns[i].Next = time.Time{}
	}
	return last
}
