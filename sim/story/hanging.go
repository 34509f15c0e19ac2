// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// hanging is a story of applications that have served, and then fail their readiness probe while they
// run. If another pod answers, the slot moves to that pod. If none answers, the application runs on.
// However long a cause lasts that is behind all pods, the slot comes to rest.
type hanging struct {
	*recovery
	trouble *trouble
	moves   *moves
}

func newHanging(w *world.World) *hanging {
	all := &workloads{World: w, replicas: map[string]int{}}
	h := &hanging{recovery: &recovery{workloads: all}, trouble: &trouble{workloads: all}}
	for i := range 3 {
		w.NewNode(fmt.Sprintf("node-%d", i+1))
	}
	t := anyTemplate(w, durations, "web", 3, []string{rolled})
	t.Gate, t.Inits, t.Restless = api.GateContainer, nil, 0
	t.Behaviour = world.GoodVersion(w.Rng)
	t.Behaviour.Probed = true
	t.YieldAfter = engine.Pick(w.Rng, []time.Duration{10 * time.Second, 30 * time.Second, time.Minute})
	if engine.Chance(w.Rng, .7) {
		t.Revision = api.Revision{Workload: "uid-web", Number: 1, Hash: "h" + strconv.Itoa(w.Rng.IntN(9))}
		t.EndpointDelay = engine.Pick(w.Rng, []time.Duration{0, time.Second, 3 * time.Second})
	}
	all.add(t, engine.Pick(w.Rng, []int{2, 3, 3, 4}))
	w.NewEnroller("enroll-1")
	w.API.Latest = max(w.API.Latest, all.longest)
	h.moves = newMoves(all)
	h.moves.watch()
	return h
}

// run plays the story of one seed.
func (h *hanging) run() {
	if !h.serves("the start") {
		return
	}
	steps := []func() bool{h.hangs, h.hangs, h.flaps, h.unanswered, h.pauses, h.dies, h.suffers}
	h.Rng.Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
	for _, step := range steps {
		if !step() || !h.serves("a hang") {
			return
		}
	}
}

// holder returns the child that runs under the slot; nil for none.
func (h *hanging) holder() (c *world.Child) {
	h.Do(func() { c = h.Checks.Holder(rolled) })
	return c
}

// serves waits until a child serves, and then for up to two minutes, or long enough for all hangs to be
// forgotten.
func (h *hanging) serves(after string) bool {
	bound := h.settling() + world.Slow(world.LastResort) + world.MostStart + time.Minute
	served := func() bool {
		c := h.Checks.Holder(rolled)
		return c != nil && !c.Asked && c.Serves()
	}
	if !h.Until(bound, served) {
		h.Do(func() { h.Violate(world.Nobody, "%v after %s nobody serves under %s", bound, after, rolled) })
		return false
	}
	if engine.Chance(h.Rng, .2) {
		return h.Pass(world.Slow(world.Forget) + time.Minute)
	}
	return h.Pass(world.MostBackOff + engine.Between(h.Rng, 5*time.Second, 2*time.Minute))
}

// hang lets the holder's application hang.
func (h *hanging) hang() *world.Child {
	c := h.holder()
	h.Do(func() {
		if c != nil {
			h.hung(c, true)
		}
	})
	return c
}

// hung lets all children of the child's hold hang, or serve again.
func (h *hanging) hung(c *world.Child, hung bool) {
	h.Note("script", "%s of %s hangs: %v", c.Name, c.Pod().Name, hung)
	for _, other := range h.Checks.Alive {
		if other.Hold == c.Hold {
			other.Hung = hung
		}
	}
}

// moving bounds the time from the beginning of a hang until another pod's application begins, in quiet
// weather.
func (h *hanging) moving() (bound time.Duration) {
	h.Do(func() {
		t, hangs := h.templates[0], h.moves.most
		if lease, ok := h.API.Lease(rolled); ok {
			hangs = max(hangs, world.RolloutOf(lease).Hangs) // a hang in the trouble may have ended unseen
		}
		bound = sum([]part{
			{"the probe fails three times", 5 * time.Second},
			{"the application hangs", world.Slow(t.YieldAfter)},
			{"a pod answers", 2 * time.Second},
			{"the application stops", t.Grace + world.Left},
			{"a pod takes the slot", time.Second},
			{"the hold has lasted long enough", max(0, world.Slow(rest(hangs))-h.moves.held())},
		})
		if len(h.Pods) == 2 {
			bound += world.Slow(2 * t.YieldAfter) // the other pod may have hung itself
		}
	})
	return bound
}

// hangs lets the holder's application hang, and demands that another pod begins in time.
func (h *hanging) hangs() bool {
	c := h.hang()
	return h.movesFrom(c, h.moving())
}

// movesFrom demands that another pod than the child's begins within the bound.
func (h *hanging) movesFrom(c *world.Child, bound time.Duration) bool {
	moved := func() bool {
		next := h.Checks.Holder(rolled)
		return next != nil && next.Pod() != c.Pod()
	}
	if !h.Until(bound, moved) {
		h.Do(func() {
			h.Violate(world.Nobody, "%v after a hang %s has not moved away from %s", bound, rolled, c.Pod().Name)
		})
		return false
	}
	return true
}

// flaps lets the holder's application hang again and again, each time for less than the time after which
// it counts as hung. The application must run on.
func (h *hanging) flaps() bool {
	c, most := h.holder(), h.templates[0].YieldAfter
	for range 2 + h.Rng.IntN(8) {
		h.Do(func() { h.hung(c, true) })
		if !h.Pass(engine.Between(h.Rng, time.Second, time.Duration(float64(most)*(1-2*world.Skew))-2*time.Second)) {
			return false
		}
		h.Do(func() { h.hung(c, false) })
		if !h.Pass(engine.Between(h.Rng, 3*time.Second, 20*time.Second)) {
			return false
		}
	}
	return h.runsOn(c, "flaps")
}

// runsOn demands that nothing has asked the child to stop.
func (h *hanging) runsOn(c *world.Child, why string) bool {
	h.Do(func() {
		if !c.Alive || c.Asked || slices.ContainsFunc(h.Checks.Moves(), func(m world.Move) bool { return m.Child == c }) {
			h.Violate(world.Stopped, "%s was stopped, and it only %s", c.Name, why)
		}
	})
	verdict, _ := h.Verdict()
	return verdict == ""
}

// unanswered lets the holder's application hang while no other pod can answer. The application must run
// on. Then the pods can answer again, and the slot must move.
func (h *hanging) unanswered() bool {
	var back func()
	h.Do(func() { back = h.silences() })
	if !h.Pass(h.grace + world.Left + 2*time.Second) {
		return false
	}
	c := h.hang()
	if !h.Pass(world.Slow(h.templates[0].YieldAfter) + engine.Between(h.Rng, time.Minute, 8*time.Minute)) {
		return false
	}
	if !h.runsOn(c, "hangs, and nobody answers") {
		return false
	}
	h.Do(back)
	// The holder announces its end again after at most five minutes.
	return h.movesFrom(c, h.moving()+h.settling()+world.MostBackOff+world.Slow(world.Settled))
}

// silences lets no pod but the holder's answer. The result undoes that.
func (h *hanging) silences() (undo func()) {
	holder := h.Checks.Holder(rolled).Pod()
	var others []*world.Pod
	for _, p := range h.Pods {
		if p != holder {
			others = append(others, p)
		}
	}
	kind := h.Rng.IntN(3)
	h.Note("script", "silences all pods but %s (%d)", holder.Name, kind)
	for _, p := range others {
		switch a := p.Agent(); {
		case kind == 0 && a != nil:
			a.FreezeAlone()
		case kind == 1:
			losesImage(p)
		default:
			p.Shown.Delete()
		}
	}
	return func() {
		for _, p := range others {
			if p.Behaviour.Imageless {
				p.Stop()
			}
		}
		h.heal()
	}
}

// pauses lets the holder's application hang while a person has paused the slot. The application must
// run on until the end of the pause.
func (h *hanging) pauses() bool {
	hands := &person{workloads: h.workloads, rng: h.Source("person")}
	h.Do(func() {
		hands.annotate(rolled, func(a map[string]string) { a[api.PausedAnnotation] = string(api.PauseHold) })
	})
	if !h.Pass(time.Second) {
		return false
	}
	c := h.hang()
	if !h.Pass(world.Slow(h.templates[0].YieldAfter)+engine.Between(h.Rng, 70*time.Second, 4*time.Minute)) || !h.runsOn(c, "hangs, and the slot is paused") {
		return false
	}
	h.Do(hands.resume)
	return h.movesFrom(c, h.moving()+time.Second)
}

// dies lets all applications hang, because a database is dead. The slot may move once. Then it
// must rest, however long the outage lasts.
func (h *hanging) dies() bool {
	last := engine.Between(h.Rng, 3*time.Minute, 20*time.Minute)
	if h.Seed%8 == 3 {
		last = 100 * time.Minute
	}
	before := 0
	h.Do(func() {
		h.Down, before = true, len(h.Checks.Moves())
		h.Note("script", "the database is dead for %v", last)
	})
	fine := h.Pass(last)
	h.Do(func() {
		h.Down = false
		if n := len(h.Checks.Moves()) - before; n > 1 {
			h.Violate(world.Wanders, "%s has moved %d times while the database was dead", rolled, n)
		}
	})
	return fine
}

// suffers lets applications hang, and the database come and go, while faults happen.
func (h *hanging) suffers() bool {
	fine := disturbFor(h.World, engine.Between(h.Rng, time.Minute, 5*time.Minute), 20*time.Second, func() {
		switch c := h.Checks.Holder(rolled); {
		case engine.Chance(h.Rng, .2):
			h.Down = !h.Down
			h.Note("script", "the database is dead: %v", h.Down)
		case engine.Chance(h.Rng, .4) && c != nil:
			h.hung(c, !c.Hung)
		default:
			h.trouble.strike()
		}
	})
	h.Do(func() {
		h.Down = false
		h.heal()
		h.killStopped()
		for _, c := range h.Checks.Alive {
			c.Hung = false
		}
	})
	return fine
}

// losesImage ends the pod's containers, whose images are missing from now on.
func losesImage(p *world.Pod) {
	p.Behaviour.Imageless = true
	for _, c := range p.Containers {
		for _, s := range slices.Clone(c.Shims) {
			s.Exit()
		}
	}
}
