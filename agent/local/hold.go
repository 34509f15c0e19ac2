// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"cmp"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
)

// defaultBeats is the longest time between two heartbeats of a program that states no other time.
// The clients of metaparticle/sync send a heartbeat every 10 s.
const defaultBeats = 30 * time.Second

// bid is a program's wish to hold.
type bid struct {
	// If the field "now" is true, the bid does not wait: the agent refuses the bid if the slot is
	// taken.
	now bool
	// stream reports that the program shows by an open connection that it lives. If stream is
	// false, the program sends heartbeats. The field "every" is the longest time between two
	// heartbeats.
	stream bool
	every  time.Duration
	// The field "writes" reports that the program bids to be the writer of a read-write lock.
	writes bool
	// anyProgram reports that any program of the pod may send the heartbeats, because the
	// protocol of metaparticle/sync does not name programs.
	anyProgram bool
	// done receives the outcome. The channel has room for it, so the loop never waits.
	done chan outcome
}

// outcome is the answer to a bid: a hold, or the problem that prevents one.
type outcome struct {
	hold    *hold
	answer  holding
	problem *problem
}

// hold is one possession of a slot by a program. Only the loop of the claim uses the fields below,
// except number, token and slot, because those three never change.
type hold struct {
	number, token, slot string
	bid                 *bid
	// tokens are the slots of the hold, each with its token. A writer has several slots.
	tokens []api.Token
	// The field "since" is the time at which the hold began, by the wall clock.
	since time.Time
	// deadline is the instant by which the program must have stopped. From the instant drainAt
	// on, the agent does not expect to renew before the deadline.
	deadline, drainAt time.Duration
	// kill is the time before the deadline at which a shim begins to kill the program; zero if
	// no shim kills the program.
	kill time.Duration
	// streams counts the connections by which the program shows that it lives. Without a
	// connection, the program must send heartbeats. The last heartbeat came at the instant
	// beatAt, and the next heartbeat must come within the duration in the field beats.
	streams       int
	beats, beatAt time.Duration
	// The field "told" reports that the program has got an answer about the hold by a call other
	// than the bid.
	told bool
	// The field "unrenewed" reports that a renewal must be stored before the agent may answer
	// that the hold is good. The cause is a leap of the wall clock, or a renewal that
	// [keeper.tie] has requested.
	unrenewed bool
	// The field "asked" reports that a person requests that the program gives the hold back.
	asked bool
	// The field "owed" reports that the program has not got the hold yet. The cause is that the
	// grant of a shim may end after the hold's deadline, or that the field "unrenewed" is true.
	owed bool
	// The field "returned" reports that the program has given the hold back. The field "over"
	// reports that the hold has ended.
	returned, over bool
	// The field "ends" reports that the state was [ending] at the loop's last decision.
	ends bool
}

// latest returns the slot with the greatest token, and that token. Each earlier hold of any of
// the slots has a smaller token than this result, because the tokens of each slot grow.
func latest(tokens []api.Token) (slot, token string) {
	for _, t := range tokens {
		if len(t.Token) > len(token) || len(t.Token) == len(token) && t.Token > token {
			slot, token = t.Slot, t.Token
		}
	}
	return slot, token
}

// tokenOf returns the token of the slot; empty if the hold does not have the slot.
func (h *hold) tokenOf(slot string) string {
	for _, t := range h.tokens {
		if t.Slot == slot {
			return t.Token
		}
	}
	return ""
}

// The method "as" returns the mode for which the program bids in a read-write lock.
func (b *bid) as() mode {
	if b.writes {
		return asWriter
	}
	return asReader
}

// mode is the way in which a program holds a read-write lock.
type mode string

const (
	// asReader means that other readers may hold, too.
	asReader mode = "reader"
	// asWriter means that no other pod holds a slot of the lock.
	asWriter mode = "writer"
)

// The method "supported" reports whether the program shows that it lives. The result is also true
// before the program has got its hold, and while a shim keeps the program frozen after a leap. In
// both cases the program cannot show that it lives.
func (h *hold) supported(now time.Duration) bool {
	return h.streams > 0 || now < h.beatBy() || h.owed || h.unrenewed && h.kill > 0
}

// beatBy returns the instant by which the program must send its next heartbeat. After a person
// has requested that the program gives the hold back, the time between two heartbeats is at most
// [defaultBeats].
func (h *hold) beatBy() time.Duration {
	if h.asked {
		return h.beatAt + min(h.beats, defaultBeats)
	}
	return h.beatAt + h.beats
}

// beat remembers a heartbeat. A program whose stream has ended may continue with heartbeats. Such a
// program has stated no time between two heartbeats, so that time becomes [defaultBeats].
func (h *hold) beat(now time.Duration) {
	h.beatAt, h.beats, h.told = now, cmp.Or(h.beats, defaultBeats), true
}

// expect begins the wait for the first heartbeat of a program that has just shown by a call
// that it lives.
func (h *hold) expect(now, every time.Duration) { h.beatAt, h.beats, h.told = now, every, true }

// wake returns the instant at which the answers about the hold may change without an
// event.
func (h *hold) wake(now time.Duration) time.Duration {
	at := time.Duration(pace.Never)
	for _, next := range []time.Duration{h.drainAt, h.beatBy()} {
		if now < next {
			at = min(at, next)
		}
	}
	return at
}

// good returns for how long an answer that is sent now is good. The result is zero if the hold
// has ended. The result is also zero while the field "unrenewed" is true.
func (h *hold) good(now time.Duration) time.Duration {
	if h.over || h.returned || h.unrenewed {
		return 0
	}
	return max(h.deadline-h.kill-now, 0)
}

// phase returns the state of the hold for the answers of the local API.
func (h *hold) phase(now time.Duration) phase {
	switch {
	case h.over || h.returned || now >= h.deadline:
		return lost
	case h.unrenewed:
		return uncertain
	case now >= h.drainAt:
		return ending
	case h.asked:
		return asked
	}
	return held
}

// phase is the state of a hold, as the program sees it.
type phase string

const (
	// held means that the hold is good, and that the agent renews it.
	held phase = "held"
	// asked means that a person requests that the program gives the hold back.
	asked phase = "asked"
	// ending means that the last renewals have failed, and that the program must stop its work
	// before the deadline.
	ending phase = "ending"
	// uncertain means that a renewal must be stored before the hold is good again, mostly because
	// the machine may have been paused. Until then the program must not write.
	uncertain phase = "uncertain"
	// lost means that the hold has ended.
	lost phase = "lost"
)
