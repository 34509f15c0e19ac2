// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import "time"

// lapse estimates for how long the machine was paused since the last renewal. CLOCK_BOOTTIME stands
// still in a pause, so a hold's drain comes late by the length of the pause. The step by which
// the wall clock is corrected afterwards shows that length.
type lapse struct {
	// The fields have differences of the wall clock to CLOCK_BOOTTIME. The field "base" has the one at
	// the last renewal, and "last" has the one just after the last leap.
	base, last time.Duration
	// length is the longest step forward since the last renewal; zero without such a step.
	length time.Duration
	// at is the instant of the last leap.
	at time.Duration
}

// leapt remembers a leap at the instant "now", after which the wall clock is "ahead" of
// CLOCK_BOOTTIME. The argument "confirmed" reports that a renewal has followed all earlier leaps. A
// step back shows no pause, but it does not disprove an earlier pause either.
func (l *lapse) leapt(now, ahead time.Duration, confirmed bool) {
	if confirmed {
		l.base, l.length = l.last, 0
	}
	l.last, l.at = ahead, now
	l.length = max(l.length, ahead-l.base)
}

// drainAt returns the instant at which a drain must begin that would begin at the argument "at"
// without a pause. The time "answer" after the leap is left for the renewal's answer. Otherwise each
// large step of the wall clock would stop the application, although the API server answers.
func (l *lapse) drainAt(at, answer time.Duration) time.Duration {
	return min(at, max(at-l.length, l.at+answer))
}
