// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/shim"
	"github.com/metaparticle-io/metaparticle/api"
)

// clock is the CLOCK_BOOTTIME of a node. Its rate changes as a time daemon slews
// it, and a machine that is paused from outside has a clock that stands still.
type clock struct {
	w *World
	// read is the clock's value at the instant at of true time; since then it has gone at
	// the rate.
	read, at time.Duration
	rate     float64
	stands   bool
	alarms   []*alarm
}

// alarm rings when the clock shows the instant, however its rate has changed
// until then.
type alarm struct {
	instant time.Duration
	ring    func()
	set     int
}

// start sets the clock, as a boot does: earlier alarms are void.
func (c *clock) start(read time.Duration) {
	c.read, c.at, c.stands, c.alarms = read, c.w.now(), false, nil
}

func (c *clock) now() time.Duration {
	if c.stands {
		return c.read
	}
	return c.read + time.Duration(c.rate*float64(c.w.now()-c.at))
}

// change lets the clock go on at another rate, or stand still.
func (c *clock) change(rate float64, stands bool) {
	c.read, c.at = c.now(), c.w.now()
	c.rate, c.stands = rate, stands
	for _, a := range c.alarms {
		c.arm(a)
	}
}

// ring runs f when the clock shows the instant.
func (c *clock) ring(instant time.Duration, f func()) *alarm {
	a := &alarm{instant: instant, ring: f}
	c.alarms = append(c.alarms, a)
	c.arm(a)
	return a
}

// cancel takes an alarm back, if there is one.
func (c *clock) cancel(a *alarm) {
	c.alarms = slices.DeleteFunc(c.alarms, func(other *alarm) bool { return other == a })
}

func (c *clock) arm(a *alarm) {
	a.set++
	if c.stands {
		return
	}
	set := a.set
	c.w.after(time.Duration(float64(a.instant-c.now())/c.rate)+1, func() {
		// An alarm that another rate has armed anew has another number.
		if i := slices.Index(c.alarms, a); i >= 0 && a.set == set {
			c.alarms = slices.Delete(c.alarms, i, i+1)
			a.ring()
		}
	})
}

// slew changes the rate of the node's clock: a time daemon corrects it.
func (n *node) slew() {
	n.change(n.anyRate(), n.stands)
	n.w.note(n.name, "its clock goes at %.3f", n.rate)
}

// step sets the node's wall clock, forwards or back. No CLOCK_BOOTTIME sees that;
// shims notice.
func (n *node) step(by time.Duration) {
	n.wallOff += by
	n.set += by
	n.w.note(n.name, "its wall clock is off by %v", n.wallOff)
	for _, p := range n.pods() {
		for _, c := range p.containers {
			for _, s := range slices.Clone(c.shims) {
				s.push(shim.ClockSet)
			}
		}
		for _, a := range p.agents {
			a.leapt()
		}
	}
}

// anyStep returns a random step of the wall clock, as by a time daemon or a person.
func (n *node) anyStep() time.Duration { return between(n.rng, -2*time.Hour, 2*time.Hour) }

// setRight bounds the time from the end of a pause until the hypervisor or a time
// daemon corrects the wall clock.
const setRight = 5 * time.Second

// pause stops the machine from outside, as a hypervisor does: nothing on it goes
// on, its clock neither.
func (n *node) pause() {
	if n.paused || n.frozen || !n.up {
		return
	}
	n.w.note(n.name, "is paused, and its clock stands still")
	n.paused = true
	n.change(n.rate, true)
	n.stop()
}

// unpause lets the machine go on. Its wall clock is behind.
func (n *node) unpause() {
	if !n.paused {
		return
	}
	lost := n.w.now() - n.at
	n.w.note(n.name, "goes on after a pause of %v", lost)
	n.paused = false
	n.wallOff -= lost
	n.wokeAt = n.w.now()
	n.w.after(between(n.rng, 0, setRight), func() { n.step(lost) })
	n.change(n.rate, false)
	for _, c := range slices.Clone(n.w.ledger.alive) {
		if c.pod().node == n {
			c.excused = c.excused || c.unwatched() // nothing is there to stop the child
			n.w.lingers(c)
		}
	}
	n.goOn()
	n.catchUp()
}

// catchUp lets the kubelet do what came up while the machine stood still.
func (n *node) catchUp() {
	due := n.due
	n.due = nil
	for _, f := range due {
		f()
	}
}

// whenUnpaused runs f now, or as soon as the machine goes on: the kubelet is on it.
func (n *node) whenUnpaused(f func()) {
	if n.paused {
		n.due = append(n.due, f)
		return
	}
	f()
}

// lingering bounds the time for which a child runs on after its machine woke past the
// deadline. Then the wall clock is set right, and the shim, which notices that, has
// stopped the child.
const lingering = setRight + quick

// absent reports whether docs/guarantees.md excuses the child from exclusivity. An
// excused child is frozen, alone or with its machine. Or its machine has just woken
// from a pause that outlasted the slot. Or the child is an endpoint that its pod could
// not remove.
func (w *World) absent(c *child, slot string) bool {
	n := c.pod().node
	if c.excused || n.paused || c.still {
		return true
	}
	if !w.expired(c, slot) {
		return false
	}
	r := w.ledger.renewals[key(slot, c.pod().identity(), c.hold)]
	return n.wokeAt > r.at && w.now() <= n.wokeAt+lingering ||
		c.pod().gate == api.GateReadiness && c.pod().unstorable()
}

// expired reports whether the fastest clock lets a standby take the child's slot.
func (w *World) expired(c *child, slot string) bool {
	r, ok := w.ledger.renewals[key(slot, c.pod().identity(), c.hold)]
	return ok && w.now() > r.free()
}

// lingers checks a child whose machine has just woken. A child that has outlived its
// slot must be dead once the time to notice is over.
func (w *World) lingers(c *child) {
	w.after(lingering+time.Millisecond, func() {
		if c.alive {
			w.checkOutlived(c)
		}
	})
}

// goesOn checks the invariants when a child that stood still goes on.
func (w *World) goesOn(c *child) {
	w.checkOutlived(c)
	for _, t := range c.slots {
		for _, other := range w.ledger.alive {
			together := other.pod() == c.pod() && other.hold == c.hold
			if other.has(t.Slot) && !together && !w.absent(other, t.Slot) && !c.excused {
				w.violate(twoAtOnce, "%s of %s goes on while %s of %s lives, both under %s",
					c.name, c.where, other.name, other.where, t.Slot)
			}
		}
	}
}
