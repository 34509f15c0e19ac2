// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package pace bounds how often an agent does something: a burst at once, and then one action in each
// period; after failures, the pauses of [Backoff]. A [Pace] counts as the generic cell rate algorithm does
// (ITU-T I.371), so it needs no timer and stores one instant: the time since boot (CLOCK_BOOTTIME).
// [Never] is the instant that does not come, and [Sleep] bounds the sleeps of loops.
package pace

import (
	"math"
	"time"
)

const (
	// quickest is short because most failures end within a second: enroll may create a pod's Role and
	// Leases only moments after the pod has started.
	quickest = 100 * time.Millisecond
	// Slowest lets a standby burden an API server after an outage about as much as a holder does. A holder
	// of a 60 s lease renews every 10 s.
	Slowest = 10 * time.Second
)

// Backoff returns the pause after a failure. The argument "misses" is the number of failures in a row
// before this one; each doubles the pause, up to [Slowest]. The caller adds its own jitter.
func Backoff(misses int) time.Duration { return min(quickest<<min(misses, 10), Slowest) }

// Pace bounds the rate of one type of action. Instants are durations since any common beginning.
type Pace struct {
	// Every is the least average time between two actions beyond a burst.
	Every time.Duration
	// Burst is the number of actions that may come at once. A Pace with a Burst of 0 permits an
	// action only one period after the last counted action would have been due.
	Burst int

	// paid is the instant from which another action keeps the rate without a burst. Each action moves
	// this instant by Every. So a burst of actions moves the instant far into the future.
	paid time.Duration
}

// NextAt returns the instant from which another action is within the bounds.
func (p *Pace) NextAt() time.Duration { return p.paid - time.Duration(p.Burst-1)*p.Every }

// Spend counts an action at the instant "now", even if the action is beyond the bounds.
func (p *Pace) Spend(now time.Duration) { p.paid = max(p.paid, now) + p.Every }

// TrySpend counts an action at the instant "now", if the action is within the bounds. Otherwise TrySpend
// counts nothing, and the result is false.
func (p *Pace) TrySpend(now time.Duration) (within bool) {
	if now < p.NextAt() {
		return false
	}
	p.Spend(now)
	return true
}

// Never is the instant that does not come.
const Never = time.Duration(math.MaxInt64)

// LongestSleep bounds each sleep of a loop. Go's timers stop while the machine sleeps. So after the
// machine wakes, a loop reads the clock within this time, and a renewal may be late by as much. A
// shim's deadline does not depend on any loop.
const LongestSleep = 10 * time.Second

// Sleep returns the length of a sleep from the instant "now" until the instant "wake", within the
// bound [LongestSleep]. The result is positive. In a test with a fake clock, several goroutines that
// wait for timers of length zero can crash the race detector of Go 1.26.
func Sleep(now, wake time.Duration) time.Duration {
	if wake == Never {
		return LongestSleep
	}
	return min(max(wake-now, time.Nanosecond), LongestSleep)
}
