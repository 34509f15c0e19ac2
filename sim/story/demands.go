// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// demands is the part of the story [table] that causes the fault of one case, and checks the
// consequences that the rules promise.
type demands struct {
	*recovery
	slot   string
	budget api.Budget
	former *world.Pod    // the holder at the time of the cause
	at     time.Duration // the instant of the cause
}

// ready waits until the world is healthy: a child runs, and all pods but the child's pod have been
// standbys for a while. The function returns false after a violation.
func (d *demands) ready() bool {
	if !d.quiet("the row before") {
		return false
	}
	d.Do(func() {
		for _, p := range d.Pods {
			for _, c := range p.Containers {
				c.Failures = 0
			}
		}
	})
	return d.Pass(engine.Between(d.Rng, time.Second, time.Second+d.budget.Renew))
}

// stopStandbys stops all pods but the holder.
func (d *demands) stopStandbys() {
	d.Do(func() {
		holder := d.Checks.Holder(d.slot).Pod()
		for _, p := range slices.Clone(d.Pods) {
			if p != holder {
				p.Stop()
			}
		}
	})
	d.Pass(d.grace + world.Left)
}

// once calls the function "cause" with the holder's child, and returns that child. The fields
// "former" and "at" record the child's pod and the instant of that call.
func (d *demands) once(cause func(*world.Child)) *world.Child {
	var c *world.Child
	d.Do(func() {
		c = d.Checks.Holder(d.slot)
		cause(c)
		d.former, d.at = c.Pod(), d.Now()
	})
	return c
}

// each returns a function that takes a child, and calls the function "cause" with each living
// child of that child's hold.
func (d *demands) each(cause func(*world.Child)) func(*world.Child) {
	return func(c *world.Child) {
		for _, other := range d.alive(c.Hold) {
			cause(other)
		}
	}
}

// alive returns the living children of a hold.
func (d *demands) alive(hold string) []*world.Child {
	return slices.DeleteFunc(slices.Clone(d.Checks.Alive), func(c *world.Child) bool { return c.Hold != hold })
}

// handover applies the cause to the holder, and demands that another child begins soon after the
// holder's children are dead.
func (d *demands) handover(cause func(*world.Child)) { d.handoverWithin(0, cause) }

// handoverWithin does the same as handover. The argument "more" prolongs the bound.
func (d *demands) handoverWithin(more time.Duration, cause func(*world.Child)) {
	var all []*world.Child
	c := d.once(func(c *world.Child) { all = d.alive(c.Hold); cause(c) })
	dead := func() bool { return !slices.ContainsFunc(all, func(c *world.Child) bool { return c.Alive }) }
	if !d.Until(d.grace+world.Left+time.Second, dead) {
		d.fail(world.Stopped, "%s lives on", c.Name)
		return
	}
	end := d.lastEnd()
	if !d.Until(time.Minute+more, d.free(c)) {
		d.fail(world.Nobody, "nobody holds %v after %s is dead", time.Minute+more, c.Name)
		return
	}
	d.Do(func() {
		if next := d.next(c); next.Began-end > more+world.Quick*time.Duration(len(d.slots)) {
			d.Violate(world.Nobody, "%s began %v after %s was dead", next.Name, next.Began-end, c.Name)
		}
	})
}

// notByFormer demands that the former holder does not hold next. A pod that yields lets the other
// pods go first.
func (d *demands) notByFormer() {
	d.Do(func() {
		if c := d.Checks.Holder(d.slot); c != nil && c.Pod() == d.former {
			d.Violate(world.Nobody, "%s yielded to itself", d.former.Name)
		}
	})
}

// expiry applies the cause to the holder, and demands that another child begins as soon as the
// slot has expired.
func (d *demands) expiry(cause func(*world.Child)) { d.expiryWithin(0, cause) }

// expiryWithin applies the cause to the holder, and demands that another child begins soon after
// the slot has expired by the slowest clock. The argument "more" prolongs the bound.
func (d *demands) expiryWithin(more time.Duration, cause func(*world.Child)) {
	c := d.once(cause)
	slack := world.Late + more + world.Quick*time.Duration(len(d.slots))
	bound := time.Duration(float64(d.budget.Duration)/(1-world.Skew)) + slack
	// An agent that gets no replies may still store one more renewal.
	if most := bound + d.budget.Renew + 2*time.Second; !d.Until(most, d.free(c)) {
		d.fail(world.Nobody, "nobody holds after %v", most)
		return
	}
	d.Do(func() {
		next := d.next(c)
		var last time.Duration
		for _, slot := range d.slots {
			last = max(last, d.Checks.Renewals[world.Key(slot, c.Pod().Identity(), c.Hold)].At)
		}
		if next.Began-last > bound {
			d.Violate(world.Nobody, "%s began %v after the last renewal", next.Name, next.Began-last)
		}
	})
}

// undisturbed applies the cause to the holder, and demands that the holder's child runs on for
// twice the lease duration.
func (d *demands) undisturbed(cause func(*world.Child)) {
	c := d.once(cause)
	d.Pass(2 * d.budget.Duration)
	d.stillRuns(c)
}

// stillRuns demands that the child has not been stopped.
func (d *demands) stillRuns(c *world.Child) {
	d.Do(func() {
		if !c.Alive || c.Asked {
			d.Violate(world.Stopped, "%s was stopped", c.Name)
		}
	})
}

// safely applies the cause to the holder, and demands only that the invariants hold.
func (d *demands) safely(cause func(*world.Child)) {
	d.once(func(c *world.Child) {
		// The children ignore SIGTERM. Children that obey might stop long before the deadline, and
		// no case would test the deadline.
		d.each(ignoreStop)(c)
		cause(c)
	})
	d.Pass(d.budget.Duration * 13 / 10)
	d.Do(func() { d.API.Weather = apiserver.Fair })
}

// free returns a function. At each call this function reports whether a child that began after the
// fault runs under the slot.
func (d *demands) free(before *world.Child) func() bool {
	return func() bool { return d.next(before) != nil }
}

// next returns a child that has the slot, began after the fault, and was not asked to stop; nil
// for none. The argument "before" is the holder's child at the instant of the fault, and does not
// count.
func (d *demands) next(before *world.Child) *world.Child {
	for _, c := range d.Checks.Alive {
		if c.Has(d.slot) && c != before && c.Began > d.at && !c.Asked {
			return c
		}
	}
	return nil
}

// lastEnd returns the instant of the most recent end of a child.
func (d *demands) lastEnd() time.Duration {
	d.Lock()
	defer d.Unlock()
	return d.Checks.Ends[len(d.Checks.Ends)-1].At
}

// fail reports a violation of the invariant, for a caller that does not hold the mutex.
func (d *demands) fail(invariant, what string, args ...any) {
	d.Do(func() { d.Violate(invariant, what, args...) })
}
