// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"time"

	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// machineRows has the cases of the story "table" about nodes and their clocks.
type machineRows struct{ *demands }

func (r machineRows) rows() map[string]func() {
	return map[string]func(){
		"node gone":                   func() { r.expiry(func(c *world.Child) { c.Pod().Node.Crash() }) },
		"node restarts":               r.reboot,
		"node suspended":              func() { r.expiry(func(c *world.Child) { c.Pod().Node.Freeze() }) },
		"machine paused":              r.pausedPastLease,
		"machine paused, and cut off": r.pausedAndCutOff,
		"machine paused for a moment": func() { r.undisturbed(r.pauseBriefly) },
		"clocks are set and slewed":   func() { r.undisturbed(r.changeClocks) },
	}
}

// reboot demands that a pod holds soon after the holder's node has booted. The new boot id
// proves that no process of the earlier boot is alive. The kubelet starts the earlier holder's
// pod within 3 s. Then this pod acquires its Lease again, or another pod acquires the Lease.
func (r machineRows) reboot() {
	c := r.once(func(c *world.Child) { c.Pod().Node.Crash() })
	n := c.Pod().Node
	r.Pass(engine.Between(r.Rng, 10*time.Millisecond, time.Second))
	slow := engine.Chance(r.Rng, .5)
	r.Do(func() {
		for _, container := range c.Pod().Containers {
			// If the kubelet first pulls the image, no new shim reports for a while.
			container.Pending = slow
		}
		n.Reboot()
	})
	up := r.Now()
	r.Until(time.Minute, r.free(c))
	r.Do(func() {
		next := r.next(c)
		if next == nil || next.Began-up > 3*time.Second+2*world.Quick {
			r.Violate(world.Nobody, "nobody holds %v after the reboot", r.Now()-up)
		}
	})
}

// pausedPastLease pauses the machine until another pod holds. Then the machine wakes, and the child
// must be dead soon after its agent has learned of the other holder.
func (r machineRows) pausedPastLease() {
	c, ok := r.pauseUntilAnotherHolds()
	if !ok {
		return
	}
	r.Do(c.Pod().Node.Unpause)
	woke := world.Slow(r.noticing())
	if !r.Until(woke, func() bool { return !c.Alive }) {
		r.fail(world.Outlived, "%s lives %v after its machine woke, and another holds its slot", c.Name, woke)
	}
}

// pausedAndCutOff pauses the machine until another pod holds. Then the machine wakes without a
// network, so its agent cannot learn of the other holder. The invariants demand that the shim
// stops or freezes the child without the agent's help.
func (r machineRows) pausedAndCutOff() {
	c, ok := r.pauseUntilAnotherHolds()
	if !ok {
		return
	}
	r.Do(func() {
		c.Pod().Node.Cut(true, true)
		c.Pod().Node.Unpause()
	})
	r.Pass(world.Slow(world.MostUnfrozen) + time.Second)
}

// pauseUntilAnotherHolds pauses the machine of the holder, and waits until another pod has held for
// some time. The first result is the child on the machine, which is still paused. After a violation
// the second result is false.
func (r machineRows) pauseUntilAnotherHolds() (*world.Child, bool) {
	c := r.once(func(c *world.Child) {
		// The children ignore SIGTERM. Children that obey might stop before their agent has learned
		// of the other holder.
		r.each(ignoreStop)(c)
		c.Pod().Node.Pause()
	})
	bound := world.Slow(r.budget.Duration) + world.Late + world.Quick*time.Duration(len(r.slots))
	if !r.Until(bound, r.free(c)) {
		r.fail(world.Nobody, "nobody holds %v after the machine was paused", bound)
		return nil, false
	}
	return c, r.Pass(engine.Between(r.Rng, 0, r.budget.Duration))
}

// noticing bounds the time for which a child runs on after its machine was paused past the
// deadline. The machine's clock measures the time. The bound is valid only while the API server
// answers.
func (r machineRows) noticing() time.Duration {
	return sum([]part{
		{"the holder's watch delivers an event, and the agent reads", world.Quick},
		{"the shim kills and reaps", r.budget.Kill},
	})
}

// pauseBriefly pauses the machine for at most half of the time that the method Outage returns.
// An outage of the API server that is no longer than that time stops no child.
func (r machineRows) pauseBriefly(c *world.Child) {
	n := c.Pod().Node
	n.Pause()
	r.After(engine.Between(r.Rng, 10*time.Millisecond, r.budget.Outage()/2), n.Unpause)
}

// changeClocks changes the rate of each clock, and sets each wall clock.
func (r machineRows) changeClocks(*world.Child) {
	for _, n := range r.Nodes {
		n.Slew()
		n.Step(n.AnyStep())
	}
}
