// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package instant defines the instant that never comes, and the longest sleep of a loop. Packages
// claim, turn, leave and show return that instant, and the agent's loop compares with it. An instant
// is the time since boot (CLOCK_BOOTTIME), as a [time.Duration].
package instant

import (
	"math"
	"time"
)

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
