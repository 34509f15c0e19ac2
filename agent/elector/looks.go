// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package elector

import (
	"cmp"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/pace"
)

// beginLook begins a look of the slot, if the next look is due.
func (s *slot) beginLook(p *plan) {
	at := max(s.look.at, s.spareAt())
	if s.sharesLooks() {
		at = max(at, s.looks.nextAt(s.look.from == "", s.readsForAny() && !s.looks.answered()))
		if s.look.denied {
			at = max(at, s.looks.deniedUntil)
		}
	}
	if p.now < at {
		p.wakeAt(at)
		return
	}
	s.look.begin(p.now)
	s.spendOnLook(p.now)
	if s.look.denied {
		s.looks.knock(p.now + s.jitter(min(pace.Backoff(s.looks.denials), s.Self.Budget.Renew)))
	}
	p.add(Action{Kind: Look, slot: s, look: s.look.number, From: s.look.from})
}

// longestSilence bounds the time for which a standby trusts the silent watch of a held or shut slot.
// A watch can stay open although no event can arrive any more, for example behind a proxy. Such a
// watch ends by its timeout only after hours. A new look costs two requests, which is little: in five
// minutes a holder with the default lease duration sends sixty renewals.
const longestSilence = 5 * time.Minute

// silentUntil returns the instant until which the standby trusts a silent watch of the slot. A holder
// renews six times in a lease duration, so two renewals are missing after a third of the duration.
// Without a new look, the standby would see a release only when the last state that the watch has
// shown expires. A shut slot may have no holder that renews. The standby does not write the Lease of a
// shut slot, so no conflict reveals a broken watch. If a slot is free, or its Lease expires before the
// look, the standby then writes the Lease. So the watch of such a slot may be silent for ever.
func (s *slot) silentUntil() time.Duration {
	r, _ := s.view.Record()
	if s.shut(r) {
		return s.view.Heard() + longestSilence
	}
	if r.Holder != "" && !s.Self.Mine(r) {
		b := s.Self.Budget
		at := s.view.Heard() + min(2*max(b.Renew, r.Period(b)), longestSilence)
		if at < s.view.ExpiresAt(s.Self.Budget.Duration) {
			return at
		}
	}
	return pace.Never
}

// lookAgain ends the present look, and sets the earliest instant of the next look.
func (s *slot) lookAgain(now, retryAfter time.Duration) {
	s.unsee(now)
	s.look.failed = true
	s.look.at = now + s.backoff(now, retryAfter)
}

// lookAll begins a look of each slot that is not held. While another request for the slot is
// under way, no look begins, because the claim first waits for the answer to that request.
func (all slots) lookAll(p *plan) {
	all.endStaleLooks(p)
	for _, s := range all {
		s.child = p.facts.runs(s.name)
	}
	for _, s := range all.byUrgency() {
		switch {
		case s.held != nil:
			// The watch of a held slot goes on.
		case s.look.on || s.requests.any():
		case p.releases && s.sharesLooks():
			// While the claim releases its slots, no look begins, because the looks would slow
			// down the pod that acquires a released slot.
		case s.readsForAny() && all.reads() >= max(s.looks.atOnce, 1):
			// The reads of other looks are under way, and their answers lead to the next decision.
		default:
			s.beginLook(p)
		}
	}
}

// endStaleLooks ends the look of each slot whose watch has been silent for too long.
func (all slots) endStaleLooks(p *plan) {
	for _, s := range all {
		switch at := s.silentUntil(); {
		case s.held != nil || !s.look.on || !s.look.read:
		case p.now < at:
			p.wakeAt(at)
		default:
			s.distrust(p.now)
		}
	}
}

// distrust ends the look of the slot, because its watch has been silent for too long.
func (s *slot) distrust(now time.Duration) {
	s.unsee(now)
	s.view.Distrust(now)
}

// sharesLooks reports whether the bound on the looks of all slots applies to this slot. The bound
// does not apply to a slot whose Lease names this pod, or may name this pod. After an outage the
// other pods give the pod in such a Lease a short head start ([lease.Observer]). This pod must read
// the Lease within that time. A Lease may name this pod after a write without an answer, or if a
// child has a token of the slot.
func (s *slot) sharesLooks() bool {
	r, _ := s.view.Record()
	return s.Any && s.held == nil && s.requests.unread == "" && !s.child && !s.Self.Mine(r)
}

// spendOnLook counts a request that a look sends.
func (s *slot) spendOnLook(now time.Duration) {
	s.pace.Spend(now)
	if s.sharesLooks() {
		s.looks.pace.Spend(now)
		s.looks.last = now
	}
}

// readsForAny reports whether the next look of the slot begins with a read that the bound on all looks
// counts. A look that continues a watch sends no read. Such a look waits for no other look, because
// its watch may show a release that names this pod.
func (s *slot) readsForAny() bool { return s.sharesLooks() && s.look.from == "" }

// missRead remembers that a look's read has failed, so the next looks of all slots come later. If the
// look has failed after its read, or if sharesLooks is false for the slot, missRead does nothing.
func (s *slot) missRead(now, retryAfter time.Duration) {
	if s.look.read || !s.sharesLooks() {
		return
	}
	if s.look.began < s.looks.missedAt {
		s.looks.atOnce = 0
		return // this look began before the last miss, and the delay after that miss is enough
	}
	bound := min(slowest, s.Self.Budget.Renew)
	s.looks.missedAt = now
	s.looks.miss(now + s.jitter(max(min(pace.Backoff(s.looks.misses), bound), min(retryAfter, bound))))
}

// reads returns the number of looks that wait for the answers to their reads.
func (all slots) reads() (n int) {
	for _, s := range all {
		if s.look.reads() {
			n++
		}
	}
	return n
}

// byUrgency returns the slots in the order in which their looks begin, if not all of them may
// begin at once. Those slots come first whose looks have been due for the longest time. While the
// API server does not answer, slots with fewer misses come before all others. So a few Leases that
// the pod may not read delay no other look for long.
func (all slots) byUrgency() slots {
	return slices.SortedStableFunc(slices.Values(all), func(a, b *slot) int {
		if !a.looks.answered() && a.look.misses != b.look.misses {
			return cmp.Compare(a.look.misses, b.look.misses)
		}
		return cmp.Compare(a.look.at, b.look.at)
	})
}

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

// lookBound bounds the looks at the slots of a claim that needs any one of them. With this bound, a
// pod with many slots burdens a failing API server about as much as a pod with one slot. Without
// this bound, the pods of such a claim could overload an API server. The reads would then time
// out, and the repeated reads would keep the server overloaded.
type lookBound struct {
	pace pace.Pace
	// atOnce is the number of Leases that the claim may read at once. After a failed read, atOnce is
	// zero until as many reads have been answered as failed. Until then the claim reads one Lease at a
	// time. An answer that the Lease does not exist is no failure.
	atOnce int
	// misses counts the failed reads since the last success. The comment of the field "missedAt"
	// names the reads that do not count. The field "at" is the earliest instant of the next look
	// after a failed read.
	misses int
	at     time.Duration
	// missedAt is the instant at which misses was last increased. If the look of a failed read
	// began before this instant, that read does not increase misses. That read and the last counted
	// read probably failed for the same reason.
	missedAt time.Duration
	// quietUntil is the instant before which no look begins, because the claim has just released a
	// slot.
	quietUntil time.Duration
	// spaced reports that the claim has released a slot. From then on, the time [apart] or more lies
	// between two looks that read a Lease. Otherwise the pod would look at many slots at once, and
	// slow down the pods that now start their applications. The last look began at the instant "last".
	spaced bool
	last   time.Duration
	// deniedUntil is the instant before which no look of a denied slot begins. The number of such looks
	// since the last success is in the field "denials".
	deniedUntil time.Duration
	denials     int
}

// apart is the least time between two looks after a release. A pod with 64 slots then sees all slots
// within 1.7 s.
const apart = 25 * time.Millisecond

// nextAt returns the instant from which another look may begin. The argument "reads" reports whether
// the look begins with a read. If the argument "waits" is true, the look waits for the end of the
// delay after the last miss.
func (s *lookBound) nextAt(reads, waits bool) time.Duration {
	at := max(s.quietUntil, s.pace.NextAt())
	if reads && s.spaced {
		at = max(at, s.last+apart)
	}
	if waits {
		at = max(at, s.at)
	}
	return at
}

// mostReads bounds the Leases that a claim reads at once. Each such read needs a connection of its
// own. With very many connections, the TLS handshakes would delay each other until all reads time out.
// With eight reads at once, a pod with 64 slots sees all slots after the time of eight answers.
const mostReads = 8

// answer remembers that the API server has answered a read. After several misses in a row, the claim
// still reads one Lease at a time until as many answers have come. From then on, each answer permits
// one more read at once. An overloaded API server answers some reads of each pod. If one answer
// permitted all reads, the load would stay too high.
func (s *lookBound) answer() {
	s.misses = max(s.misses-1, 0)
	if s.misses == 0 {
		s.atOnce = min(s.atOnce+1, mostReads)
	}
}

// answered reports whether as many reads have been answered as failed.
func (s *lookBound) answered() bool { return s.atOnce > 0 }

// miss remembers that a read has failed. The next look begins at the instant "at", or later.
func (s *lookBound) miss(at time.Duration) { s.atOnce, s.misses, s.at = 0, s.misses+1, at }

// knock remembers that a look of a denied slot begins. The next such look begins at the instant
// "next", or later. For a pod's many slots, enroll needs a while to create all Leases and the pod's rights.
func (s *lookBound) knock(next time.Duration) { s.denials, s.deniedUntil = s.denials+1, next }

// admit remembers that the pod may now read a slot that was denied. So other denied slots may be
// readable, too.
func (s *lookBound) admit() { s.denials, s.deniedUntil = 0, 0 }

const (
	// PerMinute bounds the requests for one slot's Lease to two a second in the long run, whatever
	// the API server answers. A holder does not retry more often than that. After an outage, this
	// rate lets the previous holder read again within its head start ([lease.Observer]). The
	// shortest head start is 1.7 s: a sixth of the shortest lease (10 s). A request that hangs may
	// take half of the head start. Then 0.8 s are left, and this rate permits another request every
	// 0.5 s.
	PerMinute = 120
	// Burst bounds the requests for one slot's Lease that may come at once. A takeover takes
	// three requests: a read, a watch and a write. A handover takes three, too. The rest is left
	// for collisions with other pods.
	Burst = 20
)

// newPace returns the bound of the requests of one slot's Lease, or of the looks of a whole claim. The
// argument "more" is the number of requests that may come at once beyond [Burst]. The delays after
// failed requests keep an agent far below this bound, which is for unforeseen cases.
func newPace(more int) pace.Pace {
	return pace.Pace{Every: time.Minute / PerMinute, Burst: Burst + more}
}

// spareAt returns the instant from which a look at the slot may be sent. Half of the burst
// is kept for the writes that follow the look. Otherwise a look could see a free slot while the pod may
// send no write.
func (s *slot) spareAt() time.Duration { return s.pace.NextAt() + Burst/2*s.pace.Every }

const (
	// slowest bounds the delay of a standby after a failure. If the lease is so short that a holder renews
	// more often, the time between two renewals is the bound instead.
	slowest = pace.Slowest
	// lasts is the shortest duration of a look that resets the count of failures. If each look
	// failed after that time, a standby would send two requests in 10 s. A holder of a 30 s
	// lease sends two renewals in 10 s, so the standby burdens the API server no more than that
	// holder. A read alone does not reset the count, because a server may answer reads but
	// refuse watches.
	lasts = slowest
)
