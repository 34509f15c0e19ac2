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
	// alive reports that this standby saw the holder of the record renew.
	alive bool
	// since is the instant at which this standby last saw the record change.
	since time.Duration
	// blind reports that the watch broke and no read has followed.
	blind bool
	// heard is the instant of the last read or watch event.
	heard time.Duration
	// notBefore is the end of the holder's head start.
	notBefore time.Duration
	// headStartGiven reports that the holder got a head start after the record had expired.
	// The holder then gets no second head start for that record.
	headStartGiven bool
}

// headStart divides the lease duration. The quotient, one renewal period, is the head
// start of the holder after an outage of the API server. An outage that keeps a standby
// from reading may also keep the holder from renewing. So the standby waits for the
// head start before it takes over. In that time the holder can acquire the slot again,
// if it has proof of its child's death. An outage shorter than the head start costs no
// holder its hold, and causes no head start.
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

// giveHeadStart delays a takeover after a gap without reads and events, because an
// outage may have caused the gap. The head start only serves fairness. If the holder
// renewed in the gap, the Lease's version has changed. This standby then waits again,
// or its write is refused. After its record has expired, the holder gets only one head
// start. Otherwise an API server that breaks every watch would delay a takeover for
// ever.
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
	o.alive = o.showsLife(r)
	o.record, o.since = r, now
	// A changed record gives its holder a whole new duration, so the head start of the
	// earlier record ends. If a person has shortened the duration, that head start
	// could last longer than the new duration.
	o.notBefore, o.headStartGiven = 0, false
}

// showsLife reports whether the change to the record r shows that the holder of r lives. The
// result is true if this standby saw the hold before, and now sees its renewal. An
// acquisition shows no life, because a pod of several slots may give that slot back. After a
// gap the renewal may be old, so the first change after a gap shows no life, either. The
// first renewal that counts must have a later renew time than the record before.
func (o *Observer) showsLife(r Record) bool {
	was := o.record
	if was.UID != r.UID || r.Holder == "" || was.Holder != r.Holder || was.Hold != r.Hold || o.blind {
		return false
	}
	return o.alive || r.RenewTime.After(was.RenewTime)
}

// Alive reports whether this standby saw the present hold, and then its renewal, without a
// gap between them. While the Lease is gone, the result has no meaning.
func (o *Observer) Alive() bool { return o.alive }

// Gone notes that the Lease does not exist. Absence does not prove that the holder
// has stopped. The standby has nothing to acquire until a new Lease exists.
func (o *Observer) Gone() { o.record = Record{} }

// Blind notes that the watch broke. From here on, silence proves nothing.
func (o *Observer) Blind() { o.blind = true }

// IsBlind reports whether the watch broke and no read has followed.
func (o *Observer) IsBlind() bool { return o.blind }

// Heard returns the instant of the last read or watch event.
func (o *Observer) Heard() time.Duration { return o.heard }

// FreeAt returns the instant from which this standby may acquire the slot. While the state
// of the Lease is unknown, FreeAt returns false. If the Lease contains no duration, the
// standby waits for the duration in the argument fallback.
func (o *Observer) FreeAt(fallback time.Duration) (time.Duration, bool) {
	switch {
	case o.record.UID == "" || o.blind:
		return 0, false
	case o.record.Holder == "":
		return o.since, true
	}
	return max(o.ExpiresAt(fallback), o.notBefore), true
}

// ExpiresAt returns the instant at which the last seen hold expires, unless a renewal is
// seen before it. Unlike FreeAt, ExpiresAt also works while the watch is broken. No pod may
// ask for more than the longest duration. So ExpiresAt limits a longer duration in the
// Lease, which another program may have written.
func (o *Observer) ExpiresAt(fallback time.Duration) time.Duration {
	switch {
	case o.record.Duration <= 0:
		return o.since + fallback
	case o.record.Duration > api.MaxLeaseDuration:
		return o.since + api.MaxLeaseDuration
	}
	return o.since + o.record.Duration
}
