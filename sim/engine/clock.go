// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"slices"
	"time"
)

// Clock is the CLOCK_BOOTTIME of a node. Its rate changes when a time daemon slews the clock.
// The clock of a paused node stands still.
type Clock struct {
	engine *Engine
	// read is the time that the clock showed at a true time. The field "at" is that true time.
	// Since then the clock has run with the rate in the field Rate.
	read, at time.Duration
	// Rate is the number of seconds that the clock counts in one second of true time.
	Rate   float64
	stands bool
	alarms []*Alarm
}

// Alarm rings when the clock shows the time in the field "instant". After a change of the
// clock's rate, the alarm rings at another true time than before the change.
type Alarm struct {
	instant time.Duration
	ring    func()
	set     int
}

// NewClock returns a clock with the rate. [Clock.Start] sets the clock.
func NewClock(e *Engine, rate float64) Clock { return Clock{engine: e, Rate: rate} }

// Start sets the clock, as a boot does, and drops all alarms.
func (c *Clock) Start(read time.Duration) {
	c.read, c.at, c.stands, c.alarms = read, c.engine.Now(), false, nil
}

// Now returns the time that the clock shows.
func (c *Clock) Now() time.Duration {
	if c.stands {
		return c.read
	}
	return c.read + time.Duration(c.Rate*float64(c.engine.Now()-c.at))
}

// SetRate gives the clock another rate.
func (c *Clock) SetRate(rate float64) { c.change(rate, c.stands) }

// Stand lets the clock stand still.
func (c *Clock) Stand() { c.change(c.Rate, true) }

// Run lets the clock run again after [Clock.Stand].
func (c *Clock) Run() { c.change(c.Rate, false) }

// Stood returns the true time for which the clock has stood still.
func (c *Clock) Stood() time.Duration { return c.engine.Now() - c.at }

// change gives the clock another rate, or lets it stand still.
func (c *Clock) change(rate float64, stands bool) {
	c.read, c.at = c.Now(), c.engine.Now()
	c.Rate, c.stands = rate, stands
	for _, a := range c.alarms {
		c.arm(a)
	}
}

// Ring runs f when the clock shows the instant.
func (c *Clock) Ring(instant time.Duration, f func()) *Alarm {
	a := &Alarm{instant: instant, ring: f}
	c.alarms = append(c.alarms, a)
	c.arm(a)
	return a
}

// Cancel removes an alarm; nil is ignored.
func (c *Clock) Cancel(a *Alarm) {
	c.alarms = slices.DeleteFunc(c.alarms, func(other *Alarm) bool { return other == a })
}

// arm plans the ring of the alarm in true time, by the clock's present rate.
func (c *Clock) arm(a *Alarm) {
	a.set++
	if c.stands {
		return
	}
	set := a.set
	c.engine.After(time.Duration(float64(a.instant-c.Now())/c.Rate)+1, func() {
		// If a.set has changed, a change of the clock's rate has replaced this call.
		if i := slices.Index(c.alarms, a); i >= 0 && a.set == set {
			c.alarms = slices.Delete(c.alarms, i, i+1)
			a.ring()
		}
	})
}
