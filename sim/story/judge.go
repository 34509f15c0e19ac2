// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/controller"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// judge judges the rollout of a broken version, in times without faults.
type judge struct {
	*controller.Workload
	slot string
	on   bool
	// served is the instant from which an outage of the old version counts. Usually that version
	// served last at this instant. During a disturbance, the field has the expected end of
	// the disturbance.
	served time.Duration
	// had is the number of old pods at the beginning of a rollout. The field "excused" is the
	// number of these pods that a fault or a person may have removed during the rollout.
	had, excused int
	// free is the instant since which the slot is free and an old pod could take it. Zero
	// means that the slot is not free, or that no old pod could take it.
	free time.Duration
	// stood has the old pods that were Ready when the current turn of a broken version began. The
	// field "hold" is the hold of that turn.
	stood []*world.Pod
	hold  string
	// judged is the number of ended children that the judge has seen.
	judged int
	turns  map[api.Revision]turns
	// took has the holds of pods that took a free slot. Such a hold stops no old version, so it is
	// no turn. The field "text" is the last text about a rollout that the judge has read.
	took map[string]bool
	text string
}

// turns has the turns of one broken revision.
type turns struct {
	count int
	hold  string        // the hold of the last turn
	ended time.Duration // the end of the last turn
}

func newJudge(l *controller.Workload, slot string) *judge {
	return &judge{Workload: l, slot: slot, turns: map[api.Revision]turns{}, took: map[string]bool{}}
}

// begin switches the judge on, after a person has applied a broken version.
func (j *judge) begin() {
	j.on, j.served, j.free = true, j.Now(), 0
	j.judged = len(j.Checks.Ends)
	j.had, j.excused = len(j.olds()), 0
}

// every is the period in which the judge checks the rollout.
const every = 50 * time.Millisecond

// sit checks the rollout again and again, if the judge is on. The period is [every].
func (j *judge) sit() {
	j.After(every, func() {
		if j.on {
			j.checkProtected()
			j.checkStanding()
			j.checkServed()
			j.checkFree()
			j.noteTaking()
			j.checkTurns()
		}
		j.sit()
	})
}

// olds returns the pods of good versions that are not deleted.
func (j *judge) olds() []*world.Pod {
	return slices.DeleteFunc(j.All(), func(p *world.Pod) bool { return p.Behaviour.Broken() || !p.Shown.Stays() })
}

// replaceable returns the old pod that holds the slot, and the other old pods. Both results are
// nil if no old pod holds the slot, or if no other old pod could take the slot.
func (j *judge) replaceable() (holder *world.Pod, others []*world.Pod) {
	child := j.Checks.Holder(j.slot)
	if child == nil || child.Pod().Behaviour.Broken() {
		return nil, nil
	}
	others = slices.DeleteFunc(j.olds(), func(p *world.Pod) bool { return p == child.Pod() })
	if !slices.ContainsFunc(others, j.Available) {
		return nil, nil
	}
	return child.Pod(), others
}

// checkProtected demands that no pod of a broken version is Ready, and that an old pod is left. A
// strict controller may replace only one old pod, besides the old pods that a fault or a person
// removed.
func (j *judge) checkProtected() {
	least := 1
	if j.Template.Strict {
		least = max(least, j.had-1-j.excused)
	}
	if left := len(j.olds()); left < least {
		j.Violate(world.Unprotected, "%d old pods of %s are left, not %d", left, j.Template.Workload, least)
	}
	for _, p := range j.All() {
		if p.Behaviour.Broken() && p.Shown.IsReady() {
			j.Violate(world.Unprotected, "%s is Ready, and its version %s", p.Name, p.Behaviour.Name)
		}
	}
}

// checkStanding demands that the old pods that were Ready when a broken version's turn began stay
// Ready during that turn. Some controllers would delete an old pod that is not Ready. During a
// disturbance the check demands nothing.
func (j *judge) checkStanding() {
	c := j.Checks.Holder(j.slot)
	if c == nil || !c.Pod().Behaviour.Broken() || j.served > j.Now() {
		j.hold, j.stood = "", nil
		return
	}
	if c.Hold != j.hold {
		unready := func(p *world.Pod) bool { return !p.Shown.IsReady() }
		j.hold, j.stood = c.Hold, slices.DeleteFunc(j.olds(), unready)
	}
	for _, p := range j.stood {
		if p.Shown.Stays() && !p.Shown.IsReady() {
			j.Violate(world.Unprotected, "%s is not Ready any more, in the turn of %s", p.Name, c.Pod().Name)
		}
	}
}

// checkServed demands that the old version is never without service for longer than one turn may
// last.
func (j *judge) checkServed() {
	for _, c := range j.Checks.Alive {
		if v := c.Pod().Behaviour; c.Has(j.slot) && !v.Broken() && !c.Asked && v.Serves(j.Now()-c.Began) {
			j.served = max(j.served, j.Now())
		}
	}
	if away := j.Now() - j.served; away > j.turn() {
		j.Violate(world.Withheld, "the old version of %s does not serve for %v", j.Template.Workload, away)
	}
}

// shortestTurn is the least time that package turn gives an application to begin to serve in its
// turn. In the simulation no application gets more time, because its probes ask for no more, and
// the old version started fast.
const shortestTurn = time.Minute

// turn bounds the time for which a turn of a broken version keeps the old version from serving.
func (j *judge) turn() time.Duration {
	return sum([]part{
		{"the old application stops", j.Template.Grace + world.Left},
		{"the turn ends without serving", world.Slow(shortestTurn)},
		{"the new application begins to serve at the end, and then fails", world.Slow(world.Proof)},
		{"the new application stops", j.Template.Grace + world.Left},
		{"the old pod's container is in its back-off", world.MostBackOff + time.Second},
		{"the old application starts", world.MostStart + time.Second},
		{"the agents write and read", j.taking()},
	})
}

// taking bounds the time for which a slot is free although a pod may take it immediately.
func (j *judge) taking() time.Duration {
	return sum([]part{
		{"a pod that a release names comes first", world.Slow(time.Second)},
		{"a pod that has yielded lets the others go first", world.Slow(world.BudgetOf(j.Template.LeaseDuration).Retry)},
		{"a refused pod tries again", world.Slow(time.Second)},
		{"the requests take a while", time.Second},
	})
}

// checkFree demands that the slot does not stay free while an old pod could take the slot.
func (j *judge) checkFree() {
	lease, ok := j.API.Lease(j.slot)
	ready := slices.ContainsFunc(j.olds(), func(p *world.Pod) bool { return j.Available(p) && p.Agent() != nil })
	switch {
	case !ok || lease.Holder != "" || !ready:
		j.free = 0
	case j.free == 0:
		j.free = j.Now()
	case j.Now()-j.free > j.taking():
		j.Violate(world.Nobody, "%s is free for %v, and an old pod is Ready", j.slot, j.Now()-j.free)
	}
}

// noteTaking notes the present hold if its pod took a free slot.
func (j *judge) noteTaking() {
	lease, ok := j.API.Lease(j.slot)
	if text := lease.Annotations[api.RolloutAnnotation]; ok && text != j.text {
		j.text = text
		if r := world.RolloutOf(lease); r.Hold != "" && r.Yielder == "" {
			j.took[r.Hold] = true
		}
	}
}

// pauses are the waits between two turns that docs/operate/rollouts.md promises. Each later wait is also an
// hour.
var pauses = []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour}

// checkTurns demands that a broken revision waits between its turns, for longer each time
// ([pauses]). So in its first hour a rollout stops the old version at most four times. In each
// later hour the rollout stops the old version at most once.
func (j *judge) checkTurns() {
	for _, end := range j.Checks.Ends[j.judged:] {
		c := end.Child
		r := c.Pod().Revision
		if r.Workload != j.UID || !c.Pod().Behaviour.Broken() || j.took[c.Hold] {
			continue
		}
		t := j.turns[r]
		if t.count > 0 && t.hold != c.Hold {
			wait := pauses[min(t.count, len(pauses))-1]
			if rest := c.Began - t.ended; rest < time.Duration(float64(wait)/(1+world.Skew)) {
				j.Violate(world.StopsOften, "turn %d of revision %d begins %v after the last one, not %v", t.count+1, r.Number, rest, wait)
			}
		}
		if t.hold != c.Hold {
			t.count++
		}
		t.hold, t.ended = c.Hold, end.At
		j.turns[r] = t
	}
	j.judged = len(j.Checks.Ends)
	n := j.Newest
	if most := 4 + int((j.Now()-n.Applied)/time.Hour); j.turns[n.Stamp].count > most {
		j.Violate(world.StopsOften, "revision %d had %d turns in %v", n.Stamp.Number, j.turns[n.Stamp].count, j.Now()-n.Applied)
	}
}

// disturbed excuses the old version from serving for a while.
func (j *judge) disturbed(last time.Duration) { j.served = max(j.served, j.Now()+last) }
