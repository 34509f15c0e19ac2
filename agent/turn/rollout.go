// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// Yields says whether a holder yields to a newer revision that asks.
type Yields string

const (
	// Now: the holder yields, except to a revision whose next turn is noted.
	Now Yields = "now"
	// Later: the holder has not served for [Rest] yet.
	Later Yields = "later"
	// Not: a person has paused the slot.
	Not Yields = "no"
)

// Rollout is the text of a Lease about the order of revisions. Each write of a slot
// keeps it, so the counts outlast a hold.
type Rollout struct {
	// Hold is the hold whose agent wrote the rollout; empty in a released Lease. An agent
	// that does not know the text leaves it standing under its own hold. Such a text is
	// about an earlier hold.
	Hold string
	// Yields is the holder's.
	Yields Yields
	// Yielder is the pod that yielded, From its revision: of a hold in its turn, or of
	// the hold before a release.
	Yielder string
	From    api.Revision
	// Proven is the last revision that has served for [Proof], Start the time that it took
	// to serve; zero for unknown.
	Proven api.Revision
	Start  time.Duration
	// Turns are the turns of revisions that are not proven, the oldest revision first.
	Turns []Turns
}

// Turns counts the turns of one revision.
type Turns struct {
	// Revision counts with its number: a template that is applied again begins anew.
	Revision api.Revision
	Count    int
	// Next is the wall clock's time of the next turn; zero while the holder would yield.
	Next time.Time
}

// remembered bounds the revisions of which a Lease counts turns. Two workloads that share
// a lock and are rolled over twice each have four.
const remembered = 4

// text is the JSON form of a rollout.
type text struct {
	Hold    string  `json:"hold,omitempty"`
	Yields  Yields  `json:"yields,omitempty"`
	Yielder string  `json:"yielder,omitempty"`
	From    string  `json:"from,omitempty"`
	Proven  string  `json:"proven,omitempty"`
	Start   int64   `json:"startMilliseconds,omitempty"`
	Turns   []count `json:"turns,omitempty"`
}

type count struct {
	Revision string `json:"revision"`
	Count    int    `json:"count"`
	Next     string `json:"next,omitempty"`
}

// String returns the text for the Lease; empty for a rollout that says nothing.
func (r Rollout) String() string {
	t := text{
		Hold: r.Hold, Yields: r.Yields, Yielder: r.Yielder, From: r.From.String(),
		Proven: r.Proven.String(), Start: r.Start.Milliseconds(),
	}
	for _, one := range r.Turns {
		c := count{Revision: one.Revision.String(), Count: one.Count}
		if !one.Next.IsZero() {
			c.Next = one.Next.UTC().Format(time.RFC3339)
		}
		t.Turns = append(t.Turns, c)
	}
	out, err := json.Marshal(t)
	if err != nil || string(out) == "{}" {
		return ""
	}
	return string(out)
}

// Parse reads the text of [Rollout.String]. Any other text says nothing: without an
// order the pods follow the rule of standbys.
func Parse(s string) Rollout {
	var t text
	if s == "" || json.Unmarshal([]byte(s), &t) != nil {
		return Rollout{}
	}
	from, errFrom := api.ParseRevision(t.From)
	proven, errProven := api.ParseRevision(t.Proven)
	if errFrom != nil || errProven != nil || t.Start < 0 || t.Start > longestTurn.Milliseconds() || len(t.Turns) > remembered {
		return Rollout{}
	}
	r := Rollout{
		Hold: t.Hold, Yields: t.Yields, Yielder: t.Yielder, From: from,
		Proven: proven, Start: time.Duration(t.Start) * time.Millisecond,
	}
	for _, c := range t.Turns {
		revision, err := api.ParseRevision(c.Revision)
		next, errNext := time.Parse(time.RFC3339, c.Next)
		if err != nil || c.Count < 1 || errNext != nil && c.Next != "" {
			return Rollout{}
		}
		r.Turns = append(r.Turns, Turns{Revision: revision, Count: c.Count, Next: next})
	}
	return r
}

// of returns the turns of exactly this revision.
func (r Rollout) of(revision api.Revision) Turns {
	for _, one := range r.Turns {
		if one.Revision == revision {
			return one
		}
	}
	return Turns{Revision: revision}
}

// counted returns the rollout with one more turn of the revision.
func (r Rollout) counted(revision api.Revision) Rollout {
	one := r.of(revision)
	one.Count++
	r.Turns = append(slices.DeleteFunc(slices.Clone(r.Turns), func(t Turns) bool { return t.Revision == revision }), one)
	r.Turns = r.Turns[max(0, len(r.Turns)-remembered):]
	return r
}

// forgotten returns the rollout without the turns of a proven revision, and of those
// that the workload's controller has left behind.
func (r Rollout) forgotten(proven api.Revision) Rollout {
	r.Turns = slices.DeleteFunc(slices.Clone(r.Turns), func(t Turns) bool {
		return t.Revision.Workload == proven.Workload && t.Revision.Number <= proven.Number
	})
	return r
}

// inTurn reports whether the hold is a turn that is not proven yet.
func (r Rollout) inTurn(hold string) bool { return r.Yielder != "" && hold != "" && r.Hold == hold }

// lasting returns what outlasts a hold.
func (r Rollout) lasting() Rollout {
	last := Rollout{Proven: r.Proven, Start: r.Start, Turns: slices.Clone(r.Turns)}
	for i := range last.Turns {
		last.Turns[i].Next = time.Time{}
	}
	return last
}
