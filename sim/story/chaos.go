// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"fmt"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// chaos plays three rounds of faults and recovery. During faults the world checks only the
// invariants of safety. After the faults, each slot must get a holder, which must continue to
// hold. In the end the story deletes one holder after the other, so that each pod must hold once.
type chaos struct {
	*recovery
	trouble *trouble
}

// pools returns the slots of one example claim for each kind whose pods need any one slot. Kinds
// with the scope of a workload are left out. In the seeds 5, 15, 25 and so on of the story "chaos",
// five pods have one of these claims. The kind changes from one of these seeds to the next.
func pools() (all [][]string) {
	for _, k := range api.Kinds() {
		if k.AnyOne && k.Scope == api.ScopeNamespace {
			all = append(all, api.Claim{Kind: k, Name: "shared", Size: 3}.Slots(api.Workload{}))
		}
	}
	return all
}

// durations has the lease durations of most seeds. These leases are short, because then more events
// happen. The list "patience" adds long durations. Long leases reveal a rule that waits for a fixed
// time where a part of the lease duration is needed.
var (
	durations = []time.Duration{10 * time.Second, 12 * time.Second, 15 * time.Second, 20 * time.Second, 30 * time.Second}
	patience  = append([]time.Duration{time.Minute, 5 * time.Minute, 10 * time.Minute, time.Hour}, durations...)
)

// newChaos draws the workloads and the climate of the seed.
func newChaos(w *world.World) *chaos {
	all := &workloads{World: w, replicas: map[string]int{}}
	c := &chaos{recovery: &recovery{workloads: all}}
	takesLeases := engine.Chance(w.Rng, .4)
	takesRoles := !takesLeases && engine.Chance(w.Rng, .4)
	choice := durations
	if engine.Chance(w.Rng, .2) && !w.Restores {
		choice = patience
	}
	for i := range 3 {
		w.NewNode(fmt.Sprintf("node-%d", i+1))
	}
	add := func(workload string, replicas int, slots ...string) {
		all.add(anyTemplate(w, choice, workload, replicas, slots), replicas)
	}
	a, b := api.LockLease("a"), api.LockLease("b")
	switch kind := w.Rng.IntN(5); {
	case w.Seed%10 == 5:
		all := pools()
		pool := all[w.Seed/10%uint64(len(all))]
		add("web", 3, pool...)
		add("job", 2, pool...)
	case kind == 4:
		add("web", 1, a)
	case kind == 0:
		add("web", 3, a)
	case kind == 1:
		add("web", 2, a)
		add("job", 2, a)
	case kind == 2:
		add("web", 2, a, b)
		add("job", 2, b)
	default:
		add("web", 2, a, b)
		add("job", 2, a, b)
	}
	w.NewEnroller("enroll-1")
	if engine.Chance(w.Rng, .3) {
		w.NewEnroller("enroll-2")
	}
	if engine.Chance(w.Rng, .2) {
		c.elector = w.NewElector("elector", c.slots[0])
		c.elector.Paused = true
		c.longest = max(c.longest, world.ElectorLease)
	}
	c.person = newPerson(all)
	w.API.Latest = max(w.API.Latest, c.longest)
	if engine.Chance(w.Rng, .5) {
		c.climate = engine.Pick(w.Rng, climates(c.longest))
		w.API.Weather = c.climate
		w.Note("script", "climate %v", c.climate)
	}
	c.trouble = &trouble{workloads: all, elector: c.elector, takesLeases: takesLeases, takesRoles: takesRoles}
	return c
}

// anyTemplate draws the template of a workload.
func anyTemplate(w *world.World, choice []time.Duration, workload string, replicas int, slots []string) world.Template {
	r := w.Rng
	t := world.Template{
		Workload: workload, Slots: slots, Any: api.AnyOne(slots[0]), Settings: api.Settings{LeaseDuration: engine.Pick(r, choice)},
		Gate: engine.Pick(r, world.Gates), Grace: engine.Between(r, 3*time.Second, 20*time.Second),
		Containers: []string{"app"}, StandBy: engine.Chance(r, .8),
		Obedient: engine.Chance(r, .3),
	}
	if w.Restores && t.Gate == api.GateReadiness {
		t.Gate = api.GateContainer
	}
	if replicas == 1 {
		t.Stable = workload
	}
	if engine.Chance(r, .25) {
		t.Containers = append(t.Containers, "side")
	}
	if engine.Chance(r, .25) {
		t.Inits = []string{"migrate"}
	}
	if engine.Chance(r, .3) {
		t.Restless = engine.Between(r, 5*time.Second, time.Minute) * max(1, t.LeaseDuration/(30*time.Second))
	}
	if engine.Chance(r, .2) {
		t.LateReader = engine.Between(r, time.Millisecond, 500*time.Millisecond)
	}
	return t
}

// run plays the story of one seed.
func (c *chaos) run() {
	if !c.quiet("the start") {
		return
	}
	for range 3 {
		if !c.disturb(c.scale() * engine.Between(c.Rng, 60*time.Second, 120*time.Second)) {
			return
		}
		c.Do(c.heal)
		if !c.quiet("the trouble") {
			return
		}
	}
	c.parade()
}

// disturb causes faults for the time in the argument "last". After a violation the function returns
// false.
func (c *chaos) disturb(last time.Duration) bool {
	pace := c.scale() * engine.Between(c.Rng, 500*time.Millisecond, 10*time.Second)
	return disturbFor(c.World, last, 2*pace, c.trouble.strike)
}

// parade deletes one holder after the other, and demands that each pod holds once.
func (c *chaos) parade() {
	for {
		var holder *world.Pod
		c.Do(func() {
			for _, child := range c.Checks.Alive {
				if child.Pod().Healthy() {
					holder = child.Pod()
				}
			}
			if holder != nil {
				c.Note("script", "%s had its turn", holder.Name)
				holder.Stop()
			}
		})
		if holder == nil || !c.Until(holder.Grace+5*time.Second, func() bool { return holder.Gone }) {
			break
		}
		if bound := c.handingOver(); !c.Until(bound, c.inUse) {
			c.Do(func() { c.stuckSlots("a handover", bound) })
			return
		}
	}
	c.Do(func() {
		for _, p := range c.Pods {
			if p.Healthy() {
				c.Violate(world.Nobody, "%s never had a turn", p.Name)
			}
		}
	})
}
