// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// persons plays the story of [changing]: after the start of the workload, persons make
// three changes, which the seed draws.
type persons struct{ *changing }

// run plays the whole story of one seed.
func (c persons) run() {
	if !c.begins() {
		return
	}
	for range 3 {
		change := pick(c.rng, []func() bool{
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
	for range 1 + c.rng.IntN(4) {
		c.do(c.anyVersion)
		if !c.pass(between(c.rng, time.Millisecond, 40*time.Second)) {
			return false
		}
	}
	c.do(func() {
		c.apply(goodVersion(c.rng))
		c.unblock()
	})
	return c.finishes("quick changes", 0)
}

// anyVersion applies a new version of any behaviour, or again a version that was applied before.
func (c persons) anyVersion() {
	switch c.rng.IntN(6) {
	case 0, 1:
		c.apply(goodVersion(c.rng))
	case 2:
		c.apply(lateVersion(c.rng))
	case 3:
		c.again(pick(c.rng, c.revisions))
	default:
		c.apply(brokenVersion(c.rng))
	}
}

// resizes lets a person scale the workload down, often to zero, and up again. If the workload's
// number of pods is fixed, a person applies a good version instead.
func (c persons) resizes() bool {
	if c.fixed {
		return c.improves()
	}
	before := c.workload.replicas
	for _, n := range []int{pick(c.rng, []int{0, 0, 1}), before} {
		c.do(func() { c.scale(n) })
		if chance(c.rng, .3) && !c.pass(between(c.rng, time.Millisecond, 10*time.Second)) {
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
	c.do(c.remove)
	if chance(c.rng, .5) && !c.pass(between(c.rng, time.Millisecond, 30*time.Second)) {
		return false
	}
	c.do(func() { c.apply(goodVersion(c.rng)) })
	return c.finishes("a deletion", 0)
}

// pauses makes a person pause the slot in the middle of a rollout. The holder must go on, and must
// not yield.
func (c persons) pauses() bool {
	before := 0
	c.do(func() {
		c.hands.annotate(rolled, func(a map[string]string) { a[api.PausedAnnotation] = string(api.PauseHold) })
		c.apply(goodVersion(c.rng))
		before = len(c.checks.ends)
	})
	if !c.pass(between(c.rng, time.Second, 2*time.Minute)) {
		return false
	}
	c.do(func() {
		for _, end := range c.checks.ends[before:] {
			if p := end.child.pod(); p.shown.stays() && !p.behaviour.broken() && p.revision.Workload == c.uid {
				c.violate(stopped, "%s of %s ended while its slot was paused", end.child.name, p.name)
			}
		}
		c.hands.resume()
	})
	return c.finishes("a pause", 0)
}

// suffers lets persons change the workload while faults happen. After the faults the rollout of a
// good version must end.
func (c persons) suffers() bool {
	replicas := c.workload.replicas
	fine := disturbFor(c.World, between(c.rng, time.Minute, 4*time.Minute), 20*time.Second, func() {
		switch {
		case chance(c.rng, .1):
			c.remove()
			c.apply(goodVersion(c.rng))
		case chance(c.rng, .3):
			c.anyVersion()
		default:
			c.trouble.one()
		}
	})
	if !fine {
		return false
	}
	c.do(func() {
		c.heal()
		c.killStopped()
		c.scale(replicas)
		c.apply(goodVersion(c.rng))
		c.unblock()
	})
	// The holder's watch of the next Lease may be mute, so the holder may see an ask five minutes
	// late.
	return c.finishes("the trouble", slow(5*time.Minute))
}
