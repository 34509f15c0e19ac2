// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"strconv"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// Observer is what one standby knows about one Lease. The zero value knows no Lease, and an
// unknown Lease is never free.
type Observer struct {
	// Own is the budget of this standby, and ID its own ID as a supporter.
	Own api.Budget
	ID  string
	// This standby has promised to leave the hold "promised" alone until the instant "until".
	promised string
	until    time.Duration
	// number is the largest number of a list of supporters that the standby has seen in the hold of the last record,
	// and longest the longest duration.
	number  int
	longest time.Duration
	// record is the last state of the Lease; nil without a record. Nothing changes a record that
	// the standby has seen.
	record *Record
	// alive reports that this standby has seen a renewal by the holder of the record. The field
	// "renewed" is the instant at which this standby last saw the renew time change.
	alive   bool
	renewed time.Duration
	// newest is the newest version since the last read; zero if that version is not a number.
	newest uint64
	// The field "since" is the instant at which this standby last saw the record change.
	since time.Duration
	// blind reports that the watch has broken, and that no read has followed.
	blind bool
	// heard is the instant of the last read or watch event.
	heard time.Duration
	// distrusted is the instant at which this standby last ended a silent watch by itself.
	distrusted time.Duration
	// notBefore is the end of the holder's head start.
	notBefore time.Duration
	// headStartGiven reports that the holder has had its head start after the record had
	// expired. For the same record the holder gets no second head start.
	headStartGiven bool
	// last is the last record that this standby saw, even if the Lease is gone now. The hold of that
	// record expires at the instant "expiry".
	last   Record
	expiry time.Duration
	// doubt is the end of the doubt after a break ([Observer.DoubtedUntil]).
	doubt time.Duration
}

// Record returns the record that this standby saw last. The second result is false if the
// standby has seen none, or if the Lease is gone.
func (o *Observer) Record() (Record, bool) { return *o.Shown(), o.Shown().UID != "" }

// noRecord is the result of [Observer.Shown] without a record.
var noRecord = &Record{}

// Shown returns the same record as [Observer.Record], without a copy. The caller must not change the
// result. A later state has a record of its own, so the result stays as it is.
func (o *Observer) Shown() *Record {
	if o.record == nil {
		return noRecord
	}
	return o.record
}

// Read stores the result "r" of a consistent read at the instant "now". A read with a smaller version
// than an earlier state shows that etcd was restored.
func (o *Observer) Read(now time.Duration, r Record) {
	if version := versionOf(r); o.replaces(r) || version != 0 && version < o.newest {
		o.suspect(r)
	}
	o.Learn(now, r)
}

// Learn stores a state that this pod knows from the answer to a write of its own. The answers to
// several requests may come in another order than their states.
func (o *Observer) Learn(now time.Duration, r Record) {
	if !o.Shown().sameState(r) {
		o.see(now, r)
	}
	// After a restore of etcd, the versions may be smaller than before. So each read begins anew.
	o.newest = versionOf(r)
	if o.blind {
		o.blind = false
		o.giveHeadStart(now)
	}
	o.heard = now
}

// giveHeadStart delays a takeover after a gap without reads and events, by the time between two renewals of the
// holder. An outage that keeps a standby from reading may also keep the holder from renewing. In its head start
// the holder can acquire the slot again, if it has proof of its child's death. An outage shorter than the head
// start ends no hold, and causes no head start. The head start only serves fairness, not safety. If the holder renewed
// in the gap, the version of the Lease has changed, so this standby waits again, or its write
// is refused. For one expired record the holder gets only one head start. With more head starts, an
// API server that breaks every watch would delay a takeover for ever.
func (o *Observer) giveHeadStart(now time.Duration) {
	start := o.Shown().Period(o.Own)
	if o.headStartGiven || now-max(o.heard, o.distrusted) < start {
		return
	}
	o.notBefore = now + start
	o.headStartGiven = now >= o.ExpiresAt(0)
}

// Watched stores the state of the Lease that an event of the watch shows. The event may be old: a
// watch without a version may begin with states from before the last read. If an old event shows a
// free Lease, the API server refuses the acquiring write. If an old event shows a change, this
// standby only waits longer. An old event never shows that the holder lives.
func (o *Observer) Watched(now time.Duration, r Record) {
	if !o.old(r) && o.replaces(r) {
		o.suspect(r)
	}
	if !o.Shown().sameVersion(r) {
		o.see(now, r)
	}
	o.newest = max(o.newest, versionOf(r))
	o.heard = now
}

// see stores a state of the Lease that differs from the last state.
func (o *Observer) see(now time.Duration, r Record) {
	o.alive = o.showsLife(r)
	switch {
	case r.Holder == "":
		o.promised, o.until = "", 0 // a release alone ends a promise early
	case r.Hold != o.promised:
		o.doubt = max(o.doubt, o.until) // the promised hold may last, whatever the Lease says now
	}
	if !r.RenewTime.Equal(o.Shown().RenewTime) {
		o.renewed = now
	}
	o.record, o.since = &r, now
	// A changed record gives its holder a whole new lease duration. So the holder's head start
	// ([Observer.giveHeadStart]) for the earlier record ends. If a person has shortened the duration, the
	// old head start could otherwise last longer than the new duration.
	o.notBefore, o.headStartGiven = 0, false
	if r.Hold != o.last.Hold || r.Holder != o.last.Holder {
		o.number, o.longest = 0, 0
	}
	o.number, o.longest = max(o.number, r.Supporters.Number), max(o.longest, o.stated(0))
	o.last, o.expiry = r, o.since+o.stated(0)
}

// replaces reports whether r belongs to another Lease than the last state, or to an earlier time.
func (o *Observer) replaces(r Record) bool {
	return o.last.UID != "" && (r.UID != o.last.UID || r.Transitions < o.last.Transitions)
}

// suspect remembers a break: the state r does not follow from the last state. For example, another
// client has created the Lease again, or etcd was restored. The break proves nothing about the holder
// in the last state. A new Lease of enroll names a holder that is no pod, and all pods wait for the
// duration in that Lease. So such a Lease causes no doubt. Otherwise a person who has blocked the slot
// by a Lease of an hour could not end this hour by a deletion. A person who makes a Lease does not know for how
// long the last one lasted, and enroll does not know for how long a person held, so these are no exceptions.
func (o *Observer) suspect(r Record) {
	if _, person := api.PersonOf(o.last.Holder); !person && r.Holder != "" && r.Holder != api.UnknownPerson && !api.IsIdentity(r.Holder) {
		return
	}
	if o.last.Holder != "" && (r.Holder != o.last.Holder || r.Hold != o.last.Hold) {
		o.doubt = max(o.doubt, o.expiry)
	}
}

// DoubtedUntil returns the instant until which a hold from before a break may last, as far as this
// standby has seen. Until then the Lease is not free, whatever its present state says. A proof that a
// child of this pod is dead says nothing about that hold, either. The result is zero without a break.
//
// A break shows by another UID, by fewer transitions, or by a read with a smaller version. A standby
// that has begun after the break sees none of them.
func (o *Observer) DoubtedUntil() time.Duration { return o.doubt }

// showsLife reports whether the change from the last record to r shows that the holder of r lives.
// The result is true only if r, or an earlier state of the same hold, shows a renewal. An
// acquisition is not enough, because a pod that needs several slots may give back a slot that it
// has just acquired. The first change after a broken watch is not enough either, because that
// change may show an old renewal. The renewal must have a later renew time than the last record.
// Also, the version of the renewal must be newer than the newest version since the last read. After
// such a renewal, each later state of the same hold shows life, too.
func (o *Observer) showsLife(r Record) bool {
	was := o.Shown()
	if was.UID != r.UID || r.Holder == "" || was.Holder != r.Holder || was.Hold != r.Hold || o.blind {
		return false
	}
	return o.alive || !was.RenewTime.IsZero() && r.RenewTime.After(was.RenewTime) && !o.old(r)
}

// old reports whether r is no newer than the newest version since the last read. Kubernetes
// guarantees since version 1.35 that the versions of a resource are numbers that grow (KEP-5504).
// For a version that is not a number, the result is false.
func (o *Observer) old(r Record) bool {
	version := versionOf(r)
	return version != 0 && version <= o.newest
}

// versionOf returns the version of r as a number; zero if the version is not a number.
func versionOf(r Record) uint64 {
	version, err := strconv.ParseUint(r.Version, 10, 64)
	if err != nil {
		return 0
	}
	return version
}

// AliveUntil returns the instant until which the holder counts as alive, unless this standby sees
// another renewal. Writes by other clients do not move this instant. The result is zero, unless this
// standby saw the present hold, and then a renewal of it, with no broken watch in between. While the
// Lease is gone, the result has no meaning. The argument "fallback" is used as in [Observer.FreeAt].
func (o *Observer) AliveUntil(fallback time.Duration) time.Duration {
	if !o.alive {
		return 0
	}
	return o.renewed + o.ExpiresAt(fallback) - o.since
}

// Gone remembers that the Lease does not exist. Absence does not prove that the holder has stopped.
// Until a new Lease exists, the standby has nothing to acquire.
func (o *Observer) Gone() { o.record = nil }

// Blind remembers that the watch has broken. Until the next read, the lack of events does not show that
// the Lease is unchanged.
func (o *Observer) Blind() { o.blind = true }

// Distrust remembers that this standby ends a silent watch by itself, and reads the Lease again. The
// silence before that is no gap, because the holder may be dead. So only a gap after the end of the
// watch gives the holder a head start.
func (o *Observer) Distrust(now time.Duration) { o.blind, o.distrusted = true, now }

// IsBlind reports whether the watch has broken, and no read has followed.
func (o *Observer) IsBlind() bool { return o.blind }

// Heard returns the instant of the last read or watch event.
func (o *Observer) Heard() time.Duration { return o.heard }

// FreeAt returns the instant from which this standby may acquire the slot. While the state of
// the Lease is unknown, the second result is false. If the Lease contains no duration, the
// argument "fallback" is used.
func (o *Observer) FreeAt(fallback time.Duration) (time.Duration, bool) {
	switch {
	case o.Shown().UID == "" || o.blind:
		return 0, false
	case o.Shown().Holder == "":
		return max(o.since, o.doubt), true
	}
	return max(o.ExpiresAt(fallback), o.notBefore, o.doubt), true
}

// ExpiresAt returns the instant at which the last hold seen by the standby expires for this standby, unless
// the standby sees a renewal before that. Unlike FreeAt, ExpiresAt also works while the watch is broken. A
// supporter waits for less than the duration in the Lease, but also for its promise. After a restore of etcd, the
// Lease may state the duration from before a list that this standby has seen.
func (o *Observer) ExpiresAt(fallback time.Duration) time.Duration {
	wait := o.stated(fallback)
	switch {
	case o.Supports():
		wait = min(wait, o.Shown().Supporters.Wait)
	case o.Shown().Supporters.Number < o.number:
		wait = max(wait, o.longest) // the holder may have the promises of a later list
	}
	at := o.since + wait
	if o.Shown().Hold == o.promised {
		at = max(at, o.until)
	}
	return at
}

// Supports reports whether the holder of the last record lists this standby among its supporters. A list with a
// smaller number than an earlier list of that hold comes from a restore of etcd. The holder may have a later list.
func (o *Observer) Supports() bool {
	s := o.Shown().Supporters
	return s.Has(o.ID) && s.Number >= o.number
}

// stated returns the duration in the Lease, or the fallback if the Lease contains none. A duration above the
// maximum comes from another client, so stated replaces it by the maximum.
func (o *Observer) stated(fallback time.Duration) time.Duration {
	if d := o.Shown().Duration; d > 0 {
		return min(d, api.MaxLeaseDuration)
	}
	return fallback
}

// Promise promises the holder that this standby will not take the slot from the given hold for the given time
// from now on. The result is false, and nothing is promised, if the last record has another hold, or if the
// promise would outlast the record's duration. The caller must know that no acquiring write of this pod over
// that record can still be stored.
func (o *Observer) Promise(now time.Duration, hold string, lasts time.Duration) bool {
	r := o.Shown()
	if r.Holder == "" || hold == "" || r.Hold != hold || now+lasts > o.since+o.stated(0) {
		return false
	}
	if o.promised != hold {
		o.promised, o.until = hold, 0
	}
	o.until = max(o.until, now+lasts)
	return true
}
