// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// demands causes the fault of one case of the story [table], and checks the consequences that the
// rules promise.
type demands struct {
	*recovery
	slot   string
	budget api.Budget
	former *pod          // the holder at the time of the cause
	at     time.Duration // the instant of the cause
}

// ready waits until the world is healthy: a child runs, and all other pods have been
// standbys for a while. The function returns false after a violation.
func (d *demands) ready() bool {
	if !d.quiet("the row before") {
		return false
	}
	d.Do(func() {
		for _, p := range d.pods {
			for _, c := range p.containers {
				c.failures = 0
			}
		}
	})
	return d.Pass(engine.Between(d.Rng, time.Second, time.Second+d.budget.Renew))
}

// stopStandbys stops all pods but the holder.
func (d *demands) stopStandbys() {
	d.Do(func() {
		holder := d.checks.holder(d.slot).pod()
		for _, p := range slices.Clone(d.pods) {
			if p != holder {
				p.stop()
			}
		}
	})
	d.Pass(d.grace + left)
}

// once applies a cause to the holder's child, and returns the child. The fields "former" and "at"
// record the holder and the instant of the cause.
func (d *demands) once(cause func(*child)) *child {
	var c *child
	d.Do(func() {
		c = d.checks.holder(d.slot)
		cause(c)
		d.former, d.at = c.pod(), d.Now()
	})
	return c
}

// each returns a cause that applies the given cause to all children of the hold.
func (d *demands) each(cause func(*child)) func(*child) {
	return func(c *child) {
		for _, other := range d.alive(c.hold) {
			cause(other)
		}
	}
}

// alive returns the living children of a hold.
func (d *demands) alive(hold string) []*child {
	return slices.DeleteFunc(slices.Clone(d.checks.alive), func(c *child) bool { return c.hold != hold })
}

// handover applies the cause to the holder, and demands that another child begins soon after the
// holder's children are dead.
func (d *demands) handover(cause func(*child)) {
	var all []*child
	c := d.once(func(c *child) { all = d.alive(c.hold); cause(c) })
	dead := func() bool { return !slices.ContainsFunc(all, func(c *child) bool { return c.alive }) }
	if !d.Until(d.grace+left+time.Second, dead) {
		d.fail(stopped, "%s lives on", c.name)
		return
	}
	end := d.lastEnd()
	if !d.Until(time.Minute, d.free(c)) {
		d.fail(nobody, "nobody holds a minute after %s is dead", c.name)
		return
	}
	d.Do(func() {
		if next := d.next(c); next.began-end > quick*time.Duration(len(d.slots)) {
			d.Violate(nobody, "%s began %v after %s was dead", next.name, next.began-end, c.name)
		}
	})
}

// notByFormer demands that another pod holds next. A pod that yields lets the other
// pods go first.
func (d *demands) notByFormer() {
	d.Do(func() {
		if c := d.checks.holder(d.slot); c != nil && c.pod() == d.former {
			d.Violate(nobody, "%s yielded to itself", d.former.name)
		}
	})
}

// expiry applies the cause to the holder, and demands that another child begins as soon as the
// slot has expired.
func (d *demands) expiry(cause func(*child)) { d.expiryWithin(0, cause) }

// expiryWithin applies the cause to the holder, and demands that another child begins soon after
// the slot has expired by the slowest clock. The argument "more" prolongs the bound.
func (d *demands) expiryWithin(more time.Duration, cause func(*child)) {
	c := d.once(cause)
	slack := late + more + quick*time.Duration(len(d.slots))
	bound := time.Duration(float64(d.budget.Duration)/(1-skew)) + slack
	// An agent that gets no replies may still store one more renewal.
	if most := bound + d.budget.Renew + 2*time.Second; !d.Until(most, d.free(c)) {
		d.fail(nobody, "nobody holds after %v", most)
		return
	}
	d.Do(func() {
		next := d.next(c)
		var last time.Duration
		for _, slot := range d.slots {
			last = max(last, d.checks.renewals[key(slot, c.pod().identity(), c.hold)].at)
		}
		if next.began-last > bound {
			d.Violate(nobody, "%s began %v after the last renewal", next.name, next.began-last)
		}
	})
}

// undisturbed applies the cause to the holder, and demands that the holder's child runs on for
// twice the lease duration.
func (d *demands) undisturbed(cause func(*child)) {
	c := d.once(cause)
	d.Pass(2 * d.budget.Duration)
	d.stillRuns(c)
}

// stillRuns demands that the child has not been stopped.
func (d *demands) stillRuns(c *child) {
	d.Do(func() {
		if !c.alive || c.asked {
			d.Violate(stopped, "%s was stopped", c.name)
		}
	})
}

// safely applies the cause to the holder, and demands only that the invariants hold.
func (d *demands) safely(cause func(*child)) {
	d.once(func(c *child) {
		// The children ignore SIGTERM. Children that obey might stop long before the deadline, and
		// no case would test the deadline.
		d.each(ignoreStop)(c)
		cause(c)
	})
	d.Pass(d.budget.Duration * 13 / 10)
	d.Do(func() { d.api.Weather = apiserver.Fair })
}

// free returns a function. At each call this function reports whether another child runs under the
// slot.
func (d *demands) free(before *child) func() bool {
	return func() bool { return d.next(before) != nil }
}

// next returns a child that began under the slot after the fault; nil for none. The argument
// "before" is the holder's child at the instant of the fault, and does not count.
func (d *demands) next(before *child) *child {
	for _, c := range d.checks.alive {
		if c.has(d.slot) && c != before && c.began > d.at && !c.asked {
			return c
		}
	}
	return nil
}

// lastEnd returns the instant at which the last child ended.
func (d *demands) lastEnd() time.Duration {
	d.Lock()
	defer d.Unlock()
	return d.checks.ends[len(d.checks.ends)-1].at
}

// fail reports a violation of the invariant, for a caller that does not hold the mutex.
func (d *demands) fail(invariant, what string, args ...any) {
	d.Do(func() { d.Violate(invariant, what, args...) })
}
