// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package elector

import "time"

// look is a read of a slot's Lease, and the watch that follows. A standby looks at the slot, and a
// holder looks at the slot to guard it.
type look struct {
	// The field "on" reports that a look is under way. The field "ended" reports that the look
	// has ended, and that the caller does not know this yet.
	on, ended bool
	// read reports that the look under way has read the Lease, and now watches.
	read bool
	// told reports that an event of the Lease has come since the look began.
	told bool
	// number is the number of the present look. By this number the slot ignores late answers of
	// earlier looks.
	number int
	// The field "from" is the version from which the next look continues a watch that ended without
	// an error.
	from string
	// The field "at" is the earliest instant of the next look. The field "began" is the beginning
	// of the last look.
	at, began time.Duration
	// misses counts the failed requests for the slot since the last success; see backoff. The field
	// "failed" reports that the last look ended with a failure, and that no look has begun since.
	misses int
	failed bool
	// denied reports that the API server has no such Lease, or that the pod may not read the Lease.
	denied bool
}

// begin remembers that a look begins. If the look continues a watch, the look has no read.
func (l *look) begin(now time.Duration) {
	l.on, l.failed, l.began, l.read, l.told = true, false, now, l.from != "", false
	l.number++
}

// end ends the look. Late answers of that look change nothing.
func (l *look) end() {
	l.ended = l.ended || l.on
	l.on, l.failed = false, false
	l.number++
	l.from, l.at = "", 0
}

// empty reports whether the look that ends now has ended soon, and without an event of the Lease. A
// healthy API server ends a watch only after a long time, or when the API server itself ends.
func (l *look) empty(now time.Duration) bool { return !l.told && now-l.began < lasts }

// looked reports whether a look has read the Lease, or has ended.
func (l *look) looked() bool { return l.number > 0 && (!l.on || l.read) }

// reads reports whether the look waits for the answer to its read.
func (l *look) reads() bool { return l.on && !l.read }
