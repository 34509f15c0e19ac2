// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// persons has the steps of the story [changing]: after the start of the workload, persons make
// three changes, which the seed draws.
type persons struct{ *changing }

// run plays the whole story of one seed.
func (c persons) run() {
	if !c.begins() {
		return
	}
	for range 3 {
		change := engine.Pick(c.Rng, []func() bool{
			c.improves, c.breaks, c.breaks, c.breaks, c.hurries, c.resizes, c.vanishes, c.pauses, c.suffers, c.suffers,
		})
		if !change() {
			return
		}
	}
}

// hurries applies several versions in quick succession. The rollout of the last version, a good
// one, must end.
func (c persons) hurries() bool {
	for range 1 + c.Rng.IntN(4) {
		c.Do(c.anyVersion)
		if !c.Pass(engine.Between(c.Rng, time.Millisecond, 40*time.Second)) {
			return false
		}
	}
	c.Do(func() {
		c.Apply(world.GoodVersion(c.Rng))
		c.unblock()
	})
	return c.finishes("quick changes", 0)
}

// anyVersion applies a new version of any behaviour, or applies an earlier version again.
func (c persons) anyVersion() {
	switch c.Rng.IntN(6) {
	case 0, 1:
		c.Apply(world.GoodVersion(c.Rng))
	case 2:
		c.Apply(world.LateVersion(c.Rng))
	case 3:
		c.Again(engine.Pick(c.Rng, c.Revisions))
	default:
		c.Apply(world.BrokenVersion(c.Rng))
	}
}

// resizes lets a person scale the workload down, often to zero, and up again. If the workload's
// number of pods is fixed, a person applies a good version instead.
func (c persons) resizes() bool {
	if c.fixed {
		return c.improves()
	}
	before := c.Workload.Replicas
	for _, n := range []int{engine.Pick(c.Rng, []int{0, 0, 1}), before} {
		c.Do(func() { c.Scale(n) })
		if engine.Chance(c.Rng, .3) && !c.Pass(engine.Between(c.Rng, time.Millisecond, 10*time.Second)) {
			return false
		}
		if !c.finishes("a change of the replicas", 0) {
			return false
		}
	}
	return true
}

// vanishes deletes the workload, and makes it anew with a good version. The rollout of this version
// must end.
func (c persons) vanishes() bool {
	c.Do(c.Remove)
	if engine.Chance(c.Rng, .5) && !c.Pass(engine.Between(c.Rng, time.Millisecond, 30*time.Second)) {
		return false
	}
	c.Do(func() { c.Apply(world.GoodVersion(c.Rng)) })
	return c.finishes("a deletion", 0)
}

// pauses makes a person pause the slot in the middle of a rollout. The holder must go on, and must
// not yield.
func (c persons) pauses() bool {
	before := 0
	c.Do(func() {
		c.hands.annotate(rolled, func(a map[string]string) { a[api.PausedAnnotation] = string(api.PauseHold) })
		c.Apply(world.GoodVersion(c.Rng))
		before = len(c.Checks.Ends)
	})
	if !c.Pass(engine.Between(c.Rng, time.Second, 2*time.Minute)) {
		return false
	}
	c.Do(func() {
		for _, end := range c.Checks.Ends[before:] {
			if p := end.Child.Pod(); p.Shown.Stays() && !p.Behaviour.Broken() && p.Revision.Workload == c.UID {
				c.Violate(world.Stopped, "%s of %s ended while its slot was paused", end.Child.Name, p.Name)
			}
		}
		c.hands.resume()
	})
	return c.finishes("a pause", 0)
}

// suffers lets persons change the workload while faults happen. After the faults the rollout of a
// good version must end.
func (c persons) suffers() bool {
	replicas := c.Workload.Replicas
	fine := disturbFor(c.World, engine.Between(c.Rng, time.Minute, 4*time.Minute), 20*time.Second, func() {
		switch {
		case engine.Chance(c.Rng, .1):
			c.Remove()
			c.Apply(world.GoodVersion(c.Rng))
		case engine.Chance(c.Rng, .3):
			c.anyVersion()
		default:
			c.trouble.strike()
		}
	})
	if !fine {
		return false
	}
	c.Do(func() {
		c.heal()
		c.killStopped()
		c.Scale(replicas)
		c.Apply(world.GoodVersion(c.Rng))
		c.unblock()
	})
	// The holder's watch of the next Lease may be mute, so the holder may see a wish five minutes
	// late.
	return c.finishes("the trouble", world.Slow(5*time.Minute))
}
