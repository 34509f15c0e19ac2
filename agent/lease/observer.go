// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// Observer is the knowledge of one standby about one Lease. Its zero value knows
// nothing, and an unknown Lease is never free.
type Observer struct {
	record Record
	// since is the instant at which this standby last saw the record change.
	since time.Duration
	// blind reports that the watch broke and no read has followed.
	blind bool
	// heard is the instant of the last read or watch event.
	heard time.Duration
	// notBefore is the end of the holder's head start.
	notBefore time.Duration
	// headStartGiven reports that the holder has had its head start since the
	// record expired.
	headStartGiven bool
}

// headStart is the divisor of the lease duration that gives the holder's head
// start, one renewal period. After an outage, a standby waits for that time before
// it takes over. An outage that kept this standby from reading may have kept the
// holder from renewing. So the previous holder, if it has proof of its child's
// death, starts again first. An outage shorter than the head start cannot cost a
// holder its hold, so such an outage causes no head start.
const headStart = 6

// Record returns the record that was last seen. Record returns false if none was
// seen, or if the Lease was gone.
func (o *Observer) Record() (Record, bool) { return o.record, o.record.UID != "" }

// Read notes a consistent read at now.
func (o *Observer) Read(now time.Duration, r Record) {
	o.see(now, r)
	if o.blind {
		o.blind = false
		o.giveHeadStart(now)
	}
	o.heard = now
}

// giveHeadStart delays a takeover after a gap in which an outage may hide. The
// head start only serves fairness: if the holder renewed in the gap, the version
// has changed. This standby then waits again, or its write is refused. So the
// holder gets one head start after its record has expired. Otherwise a server
// that breaks every watch would delay a takeover for ever.
func (o *Observer) giveHeadStart(now time.Duration) {
	start := min(o.record.Duration, api.MaxLeaseDuration) / headStart
	if o.headStartGiven || now-o.heard < start {
		return
	}
	o.notBefore = now + start
	o.headStartGiven = now >= o.ExpiresAt(0)
}

// Watched notes an event of the watch, which may be old. If an old event shows a
// free Lease, the compare-and-swap refuses the acquiring write. If it shows a
// change, this standby only waits longer.
func (o *Observer) Watched(now time.Duration, r Record) {
	o.see(now, r)
	o.heard = now
}

func (o *Observer) see(now time.Duration, r Record) {
	if r.UID == o.record.UID && r.Version == o.record.Version {
		return
	}
	o.record, o.since = r, now
	// The holder of a changed record has a whole duration from here on. That duration may
	// be shorter than the head start of the record before, if a person has shortened it.
	o.notBefore, o.headStartGiven = 0, false
}

// Gone notes that the Lease does not exist. Absence does not prove that the holder
// has stopped. The standby has nothing to acquire until a new Lease exists.
func (o *Observer) Gone() { o.record = Record{} }

// Blind notes that the watch broke. From here on, silence proves nothing.
func (o *Observer) Blind() { o.blind = true }

// IsBlind reports whether the watch broke and no read has followed.
func (o *Observer) IsBlind() bool { return o.blind }

// Heard returns the instant of the last read or watch event.
func (o *Observer) Heard() time.Duration { return o.heard }

// FreeAt returns the instant from which this standby may acquire the slot. While
// the state of the Lease is unknown, FreeAt returns false. If the Lease contains
// no duration, the standby waits for fallback.
func (o *Observer) FreeAt(fallback time.Duration) (time.Duration, bool) {
	switch {
	case o.record.UID == "" || o.blind:
		return 0, false
	case o.record.Holder == "":
		return o.since, true
	}
	return max(o.ExpiresAt(fallback), o.notBefore), true
}

// ExpiresAt returns the instant at which the last seen hold expires, unless a
// renewal is seen before it. Unlike FreeAt, ExpiresAt also works while the watch
// is broken. No pod may claim more than the longest duration. So ExpiresAt waits
// no longer than that, whatever another program has written into the Lease.
func (o *Observer) ExpiresAt(fallback time.Duration) time.Duration {
	switch {
	case o.record.Duration <= 0:
		return o.since + fallback
	case o.record.Duration > api.MaxLeaseDuration:
		return o.since + api.MaxLeaseDuration
	}
	return o.since + o.record.Duration
}
