// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// courting is a story of pods that die, freeze, are deleted or lose their images at one step of their
// conversation with the holder. No application stops for a pod that has not answered ([world.Unanswered]),
// and each rollout must end.
type courting struct {
	*rolling
	rng *rand.Rand
	// step is the step at which the next pod is harmed; empty for none. The field "harmed" is that pod.
	step   world.Step
	harmed *world.Pod
}

func newCourting(w *world.World) *courting {
	c := &courting{rolling: newRolling(w), rng: w.Source("courting")}
	w.Checks.HearSteps(func(step world.Step, identity string) {
		at := slices.IndexFunc(w.Pods, func(p *world.Pod) bool { return p.Identity() == identity })
		if at < 0 || step != c.step || w.Pods[at].Revision != c.templates[0].Revision {
			return
		}
		c.step, c.harmed = "", w.Pods[at]
		w.After(engine.Between(c.rng, 1, 2*ambushed), func() { c.harm(c.harmed) })
	})
	return c
}

// harm lets a pod die, freeze, be deleted, or lose its images.
func (c *courting) harm(p *world.Pod) {
	kind := c.rng.IntN(6)
	c.Note("script", "harms %s (%d)", p.Name, kind)
	switch a := p.Agent(); {
	case kind == 0:
		p.Forget()
		p.Stop()
	case kind == 1 && a != nil:
		a.Kill()
		c.After(engine.Between(c.rng, time.Second, time.Minute), p.RestartAgent)
	case kind == 2 && a != nil:
		a.FreezeAlone()
	case kind == 3:
		p.Node.Cut(true, true)
	case kind == 4:
		losesImage(p)
	default:
		p.Shown.Delete()
	}
}

// run plays the story of one seed.
func (c *courting) run() {
	bound := c.settling() + world.Slow(world.LastResort) + time.Minute
	for range 5 {
		if c.rng.IntN(4) == 0 && !c.rolls(engine.Between(c.Rng, 30*time.Second, 2*time.Minute)) {
			return
		}
		c.Do(func() {
			c.heal()
			c.killStopped()
			c.replaceOld()
		})
		if !c.Until(bound, c.inUse) {
			c.Do(func() { c.stuckSlots("the trouble", bound) })
			return
		}
		if !c.Pass(world.Slow(world.Rest)) || !c.harms() || !c.finishes() {
			return
		}
	}
}

// replaceOld stops the pods of which nothing is left but the API object, or which have no image, and starts
// others.
func (c *courting) replaceOld() {
	for _, p := range slices.Clone(c.Pods) {
		if p.Behaviour.Imageless {
			p.Stop()
		}
	}
	c.refill()
}

// harms applies a new revision, of which one or two pods start, and harms the first of them that comes to
// the drawn step. If the only pod has not answered by then, the holder's application must run on.
func (c *courting) harms() bool {
	lone := engine.Chance(c.rng, .5)
	var holder *world.Child
	c.Do(func() {
		c.step = engine.Pick(c.rng, []world.Step{world.Wished, world.Announced, world.Answered, world.Released})
		c.harmed, holder = nil, c.Checks.Holder(c.slots[0])
		c.apply(&c.templates[0])
		c.NewPod(c.templates[0], c.place())
		if !lone {
			c.NewPod(c.templates[0], c.place())
		}
		c.Note("script", "harms a pod of revision %d after its %s", c.number, c.step)
	})
	if !c.Until(c.settling()+2*world.Slow(world.Rest+world.Proof), func() bool { return c.step == "" }) {
		c.Do(func() { c.step = "" })
		return true // for example, the container of the pod is in its back-off
	}
	if !c.Pass(engine.Between(c.rng, time.Second, 90*time.Second)) {
		return false
	}
	c.Do(func() {
		if lone && !c.Checks.Answered(c.harmed.Identity()) && holder != nil && (!holder.Alive || holder.Asked) && holder.Pod().Node != c.harmed.Node {
			c.Violate(world.Stopped, "%s was stopped for %s, which has not answered", holder.Name, c.harmed.Name)
		}
	})
	return true
}

// finishes demands that the rollout ends once the pods are well again.
func (c *courting) finishes() bool {
	c.Do(func() {
		c.heal()
		c.killStopped()
		c.replaceOld()
		c.apply(&c.templates[0])
		c.NewPod(c.templates[0], c.place())
	})
	last := c.settling() + world.Slow(world.Rest+world.Proof+5*time.Minute) + 2*time.Minute
	if !c.Until(last, c.proven) {
		c.Do(func() { c.Violate(world.Nobody, "%v after the harm revision %d is not proven", last, c.number) })
		return false
	}
	c.Do(c.stopOld)
	return c.leaves()
}

// leaves deletes the holder in quiet times, and demands that another pod holds again. The holder asks the
// other pods for answers before that.
func (c *courting) leaves() bool {
	if !c.Pass(c.grace + world.Left + world.MostBackOff) {
		return false
	}
	c.Do(func() {
		if holder := c.Checks.Holder(c.slots[0]); holder != nil {
			holder.Pod().Stop()
		}
		c.refill()
	})
	bound := c.settling() + world.Slow(world.LastResort) + time.Minute
	if !c.Pass(c.grace+world.Left) || !c.Until(bound, c.inUse) {
		c.Do(func() { c.stuckSlots("a deletion", bound) })
		return false
	}
	return true
}

// stopOld stops the pods of earlier revisions, as a controller does at the end of a rollout.
func (c *courting) stopOld() {
	for _, p := range slices.Clone(c.Pods) {
		if p.Revision != c.templates[0].Revision {
			p.Stop()
		}
	}
	c.refill()
}
