// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package elector

import (
	"time"

	"github.com/metaparticle-io/metaparticle/agent/pace"
)

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
