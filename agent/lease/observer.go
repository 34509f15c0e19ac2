// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lease

import "time"

// Observer is what one standby has seen of one Lease. The zero value has seen
// nothing, and nothing it has not seen is ever free.
type Observer struct {
	record Record
	// since is when this standby saw the record change last.
	since time.Duration
	// blind: the watch was away, and nothing was read since.
	blind bool
	// notBefore is when, after such a time, an expired Lease may be taken.
	notBefore time.Duration
}

// afterBlind is the part of a duration, the period of a renewal, that a standby
// whose watch was away waits after it could read again. What kept it from
// reading kept the holder from renewing; the one that held, and has proof of
// its child's death, goes first.
const afterBlind = 6

// Record returns what was seen last; false if nothing was, or if the Lease was
// gone.
func (o *Observer) Record() (Record, bool) { return o.record, o.record.UID != "" }

// Read notes a consistent read at now.
func (o *Observer) Read(now time.Duration, r Record) {
	if o.blind {
		o.blind = false
		o.notBefore = now + r.Duration/afterBlind
	}
	o.see(now, r)
}

// Watched notes an event of the watch. It may be an old one: what it takes for
// free is then refused by the compare-and-swap, and what it takes for a change
// only makes this standby wait longer.
func (o *Observer) Watched(now time.Duration, r Record) { o.see(now, r) }

func (o *Observer) see(now time.Duration, r Record) {
	if r.UID == o.record.UID && r.Version == o.record.Version {
		return
	}
	o.record, o.since = r, now
}

// Gone notes that the Lease does not exist. That proves nothing about who held
// it: there is nothing to take, and whatever comes next is new.
func (o *Observer) Gone() { o.record = Record{} }

// Blind notes that the watch is away: from here on, silence means nothing.
func (o *Observer) Blind() { o.blind = true }

// IsBlind reports whether nothing was read since the watch went away.
func (o *Observer) IsBlind() bool { return o.blind }

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
// counts while this standby sees nothing: what it remembers grows old.
func (o *Observer) ExpiresAt(fallback time.Duration) time.Duration {
	if o.record.Duration <= 0 {
		return o.since + fallback
	}
	return o.since + o.record.Duration
}
