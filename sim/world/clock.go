// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"slices"
	"time"
)

// clock is the CLOCK_BOOTTIME of a node. Its rate changes when a time daemon slews it.
// The clock of a paused machine stands still.
type clock struct {
	engine *engine
	// read is the time that the clock showed at a true time. The field "at" is that true time.
	// Since then the clock has run at the rate.
	read, at time.Duration
	rate     float64
	stands   bool
	alarms   []*alarm
}

// alarm rings when the clock shows the instant. A change of the clock's rate moves the
// ring in true time.
type alarm struct {
	instant time.Duration
	ring    func()
	set     int
}

// start sets the clock, as a boot does, and drops all alarms.
func (c *clock) start(read time.Duration) {
	c.read, c.at, c.stands, c.alarms = read, c.engine.now(), false, nil
}

// now returns the time that the clock shows.
func (c *clock) now() time.Duration {
	if c.stands {
		return c.read
	}
	return c.read + time.Duration(c.rate*float64(c.engine.now()-c.at))
}

// newClock returns a clock with the rate. The method start sets the clock.
func newClock(e *engine, rate float64) clock { return clock{engine: e, rate: rate} }

// setRate gives the clock another rate.
func (c *clock) setRate(rate float64) { c.change(rate, c.stands) }

// stand lets the clock stand still, and run lets it run again.
func (c *clock) stand() { c.change(c.rate, true) }
func (c *clock) run()   { c.change(c.rate, false) }

// stood returns the true time for which the clock has stood still.
func (c *clock) stood() time.Duration { return c.engine.now() - c.at }

// change gives the clock another rate, or lets it stand still.
func (c *clock) change(rate float64, stands bool) {
	c.read, c.at = c.now(), c.engine.now()
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

// cancel removes an alarm; nil is ignored.
func (c *clock) cancel(a *alarm) {
	c.alarms = slices.DeleteFunc(c.alarms, func(other *alarm) bool { return other == a })
}

// arm plans the ring of the alarm in true time, by the clock's present rate.
func (c *clock) arm(a *alarm) {
	a.set++
	if c.stands {
		return
	}
	set := a.set
	c.engine.after(time.Duration(float64(a.instant-c.now())/c.rate)+1, func() {
		// If a.set has changed, a change of the clock's rate has replaced this call.
		if i := slices.Index(c.alarms, a); i >= 0 && a.set == set {
			c.alarms = slices.Delete(c.alarms, i, i+1)
			a.ring()
		}
	})
}
