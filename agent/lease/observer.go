// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// Observer is what one standby has seen of one Lease. The zero value has seen
// nothing, and nothing it has not seen is ever free.
type Observer struct {
	record Record
	// since is when this standby saw the record change last.
	since time.Duration
	// blind: the watch was away, and nothing was read since.
	blind bool
	// heard is when this standby last read, or heard of, the Lease.
	heard time.Duration
	// notBefore is when, after such a time, an expired Lease may be taken.
	notBefore time.Duration
	// led: the holder has had its head start since the record expired.
	led bool
}

// headStart is the part of a duration, the period of a renewal, that the holder
// is left to renew in after an outage. What kept this standby from reading may
// have kept the holder from renewing; the pod that held, and has proof of its
// child's death, goes first. A shorter outage costs no holder its hold.
const headStart = 6

// Record returns what was seen last; false if nothing was, or if the Lease was
// gone.
func (o *Observer) Record() (Record, bool) { return o.record, o.record.UID != "" }

// Read notes a consistent read at now.
func (o *Observer) Read(now time.Duration, r Record) {
	o.see(now, r)
	if o.blind {
		o.blind = false
		o.lead(now)
	}
	o.heard = now
}

// lead gives the holder its head start after a gap in which an outage may hide.
// That is for fairness: a renewal in the gap has changed the version, from which
// this standby waits anew, or else refuses this standby's write. So a head start
// is given only once after the record has expired: an API server, a proxy or a
// policy that breaks each watch puts off no takeover for ever.
func (o *Observer) lead(now time.Duration) {
	start := min(o.record.Duration, api.MaxLeaseDuration) / headStart
	if o.led || now-o.heard < start {
		return
	}
	o.notBefore = now + start
	o.led = now >= o.ExpiresAt(0)
}

// Watched notes an event of the watch. It may be an old one: what it takes for
// free is then refused by the compare-and-swap, and what it takes for a change
// only makes this standby wait longer.
func (o *Observer) Watched(now time.Duration, r Record) {
	o.see(now, r)
	o.heard = now
}

func (o *Observer) see(now time.Duration, r Record) {
	if r.UID == o.record.UID && r.Version == o.record.Version {
		return
	}
	o.record, o.since = r, now
	o.led = false
}

// Gone notes that the Lease does not exist. That proves nothing about who held
// it: there is nothing to take, and whatever comes next is new.
func (o *Observer) Gone() { o.record = Record{} }

// Blind notes that the watch is away: from here on, silence means nothing.
func (o *Observer) Blind() { o.blind = true }

// IsBlind reports whether nothing was read since the watch went away.
func (o *Observer) IsBlind() bool { return o.blind }

// Heard is when this standby last read, or heard of, the Lease.
func (o *Observer) Heard() time.Duration { return o.heard }

// FreeAt is the instant from which the slot may be taken, as far as was seen;
// false while nothing is known. A Lease that says no duration is waited for as
// long as fallback.
func (o *Observer) FreeAt(fallback time.Duration) (time.Duration, bool) {
	switch {
	case o.record.UID == "" || o.blind:
		return 0, false
	case o.record.Holder == "":
		return o.since, true
	}
	return max(o.ExpiresAt(fallback), o.notBefore), true
}

// ExpiresAt is the instant from which the holder that was seen last is known to
// be one no more, unless it is seen to renew until then. Unlike FreeAt it also
// counts while this standby sees nothing: what it remembers grows old. No pod may
// claim more than the longest duration, so nobody waits for longer than that,
// whatever somebody has written into a Lease.
func (o *Observer) ExpiresAt(fallback time.Duration) time.Duration {
	switch {
	case o.record.Duration <= 0:
		return o.since + fallback
	case o.record.Duration > api.MaxLeaseDuration:
		return o.since + api.MaxLeaseDuration
	}
	return o.since + o.record.Duration
}
