// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package leash

import (
	"testing"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/instant"
)

// claimOf is a claim of the fuzz test: the hold, and its unanswered write.
type claimOf struct {
	Tie
	// sent is the instant at which the unanswered acquisition or renewal was sent; zero for none.
	sent time.Duration
	// good reports that a program has got the answer that the hold is good. The field "knows" has
	// the shims that lived at that answer.
	good  bool
	knows map[gate.ShimID]string
}

// FuzzGrantNeverOutlastsAKnownHold plays random schedules of shims, claims and leaps. The bytes
// choose the steps.
func FuzzGrantNeverOutlastsAKnownHold(f *testing.F) {
	f.Add([]byte{0, 10, 20, 30, 41, 52, 63, 74, 85, 96, 107, 118, 129, 140, 151, 162})
	f.Add([]byte{0, 1, 2, 40, 48, 200, 41, 49, 201, 202, 203, 60, 204, 205, 206})
	f.Fuzz(func(t *testing.T, steps []byte) {
		b := newBench(t, 2)
		claims := [2]claimOf{{Tie: Tie{Deadline: instant.Never}}, {Tie: Tie{Deadline: instant.Never}}}
		sent := map[gate.ShimID]order{}
		firsts := map[gate.ShimID]order{} // by shim: the last order, if that is a first grant
		for _, step := range steps {
			id := gate.ShimID('a' + step%3)
			c := &claims[step%2]
			of := int(step % 2)
			switch what := step / 10; {
			case what < 2:
				b.waits(id)
			case what < 4 && b.shims[id] != nil && b.shims[id].number != "":
				b.runs(id)
				delete(firsts, id)
			case what < 6:
				c.sent = b.now
			case what < 9 && c.sent != 0 && c.sent+b.budget.Deadline() > b.now && b.now < c.Deadline:
				c.Deadline, c.Unrenewed, c.sent = c.sent+b.budget.Deadline(), false, 0
				// Until the first good answer, each stored write ties all shims to the hold.
				join := step%5 == 0 || !c.good
				if b.tie(of, c.Tie, join) && join {
					c.remember(b)
				}
			case what < 10 && c.Deadline != instant.Never:
				b.breaks(of)
				c.Deadline, c.good, c.knows = instant.Never, false, nil
			case what < 11:
				c.Deadline, c.good, c.knows = instant.Never, false, nil
				b.tie(of, c.Tie, false)
			case what < 12 && firsts[id].number != "" && step%2 == 0:
				b.missed(firsts[id], true, b.now)
				delete(firsts, id)
				delete(sent, id)
			case what < 12 && b.shims[id] != nil:
				b.misses(id)
			case what < 13 && b.shims[id] != nil:
				b.learn(gate.Report{Shim: id, Container: "of-" + string(id), Phase: gate.Waiting, Hold: b.shims[id].number, Connected: true})
				delete(sent, id)
			default:
				b.now += time.Duration(step) * 20 * time.Millisecond
			}
			for its, o := range b.act() {
				if last, ok := sent[its]; ok && !o.kill && last.number == o.number && o.deadline < last.deadline {
					t.Fatalf("the deadline of %s moved back by %v", its, last.deadline-o.deadline)
				}
				delete(firsts, its)
				if o.first {
					firsts[its] = o
				}
				if !o.kill {
					sent[its] = o
				}
			}
			for i, c := range claims {
				for its, number := range c.knows {
					if o, ok := sent[its]; c.good && ok && o.number == number && o.deadline > c.Deadline {
						t.Fatalf("the grant of %s ends %v after the hold of claim %d", its, o.deadline-c.Deadline, i)
					}
				}
			}
		}
	})
}

// remember notes the shims whose programs may know the hold.
func (c *claimOf) remember(b *bench) {
	c.good, c.knows = true, map[gate.ShimID]string{}
	for id, its := range b.shims {
		if its.number != "" {
			c.knows[id] = its.number
		}
	}
}
