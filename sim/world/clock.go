// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"slices"
	"time"
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
