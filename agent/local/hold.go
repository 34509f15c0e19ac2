// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/instant"
)

// errEnded means that the loop of a claim has ended.
var errEnded = errors.New("local: the agent stops")

// bid is a program's wish to hold.
type bid struct {
	// now reports that the bid does not wait for another pod.
	now bool
	// stream reports that the program shows by an open connection that it lives. Otherwise
	// the program sends heartbeats, at most every apart.
	stream bool
	every  time.Duration
	// anyProgram reports that any program of the pod may send the heartbeats, because the
	// protocol of metaparticle/sync does not name programs.
	anyProgram bool
	// done gets the outcome, which never blocks the loop.
	done chan outcome
}

// outcome is the answer to a bid: a hold, or the reason why there is none.
type outcome struct {
	hold    *hold
	good    time.Duration
	problem *problem
}

// hold is one possession of a slot by a program. Only the loop of the claim uses its fields,
// but number, token and slot never change.
type hold struct {
	number, token, slot string
	bid                 *bid
	// since is the wall clock's time of the grant.
	since time.Time
	// deadline is the instant by which the program must have stopped. From drainAt on, the
	// agent expects no renewal in time.
	deadline, drainAt time.Duration
	// streams counts the connections by which the program shows that it lives. Without a
	// connection the program sends the next heartbeat before beatBy, at most beats after the
	// last one.
	streams       int
	beats, beatBy time.Duration
	// doubted reports that no renewal was stored since the last leap of the wall clock.
	doubted bool
	// asked reports that a person asks the program to give the hold back.
	asked bool
	// returned reports that the program gave the hold back. The field over reports that the
	// hold has ended.
	returned, over bool
}

// supported reports whether the program shows that it lives.
func (h *hold) supported(now time.Duration) bool { return h.streams > 0 || now < h.beatBy }

// wake returns the instant at which the answers of the hold may change by themselves.
func (h *hold) wake(now time.Duration) time.Duration {
	at := time.Duration(instant.Never)
	for _, next := range []time.Duration{h.drainAt, h.beatBy} {
		if now < next {
			at = min(at, next)
		}
	}
	return at
}

// good returns for how long an answer that is sent now is good. The result is zero for a hold
// that has ended, and until a renewal follows a leap of the wall clock.
func (h *hold) good(now time.Duration) time.Duration {
	if h.over || h.returned || h.doubted {
		return 0
	}
	return max(h.deadline-now, 0)
}

// phase returns the state of the hold in one word.
func (h *hold) phase(now time.Duration) phase {
	switch {
	case h.over || h.returned || now >= h.deadline:
		return lost
	case h.doubted:
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
	// asked means that a person asks the program to give the hold back.
	asked phase = "asked"
	// ending means that renewals have failed for so long that the program must stop its work.
	ending phase = "ending"
	// uncertain means that the machine may have been paused. The program must not write
	// before the hold is good again.
	uncertain phase = "uncertain"
	// lost means that the hold has ended.
	lost phase = "lost"
)

// acquire bids for the slot, and waits for the outcome. If ctx ends first, the program never
// learns of a hold.
func (k *keeper) acquire(ctx context.Context, b *bid) outcome {
	b.done = make(chan outcome, 1)
	err := k.call(ctx, func(now time.Duration) {
		switch {
		case k.stopping:
			b.done <- outcome{problem: stoppingProblem}
		case len(k.bids) >= mostBids:
			b.done <- outcome{problem: tooManyProblem}
		case b.now && k.hold != nil:
			b.done <- outcome{problem: busyProblem(k.config.PodName)}
		default:
			k.bids = append(k.bids, b)
			k.interestedUntil = now + interest
		}
	})
	if errors.Is(err, errEnded) {
		return outcome{problem: stoppingProblem}
	}
	select {
	case o := <-b.done:
		return o
	case <-ctx.Done():
	case <-k.ended:
	}
	return k.giveUp(b)
}

// giveUp withdraws a bid. A hold that the bid has got meanwhile was never told to the
// program, so the agent releases the slot. However late the loop is, the call waits for the loop:
// a bid that nobody has withdrawn would hold for ever.
func (k *keeper) giveUp(b *bid) outcome {
	o := outcome{problem: unavailableProblem}
	_ = k.call(context.Background(), func(time.Duration) { //nolint:contextcheck // the call outlives the bid
		k.bids = slices.DeleteFunc(k.bids, func(other *bid) bool { return other == b })
		if k.hold != nil && k.hold.bid == b {
			k.hold.returned = true
		}
		if holder, busy := k.busy(); busy || k.hold != nil {
			o.problem = busyProblem(cmp.Or(holder, k.config.PodName))
		}
	})
	return o
}

// beat takes in a heartbeat of the program for the hold with the number. The hold is nil if
// the pod does not have that hold. The result good is the time for which the answer is good.
func (k *keeper) beat(ctx context.Context, number string) (h *hold, good time.Duration, now phase, err error) {
	err = k.call(ctx, func(at time.Duration) {
		if k.hold == nil || k.hold.number != number {
			return
		}
		if k.hold.phase(at) != lost {
			k.hold.beatBy = at + cmp.Or(k.hold.beats, defaultBeats)
		}
		h, good, now = k.hold, k.hold.good(at), k.hold.phase(at)
	})
	return h, good, now, err
}

// giveBack ends the hold with the number, if the pod has it.
func (k *keeper) giveBack(ctx context.Context, number string) error {
	return k.call(ctx, func(time.Duration) {
		if k.hold != nil && k.hold.number == number {
			k.hold.returned = true
		}
	})
}

// attach takes in a connection by which the program shows that it lives, if the pod has the
// hold with the number. Otherwise the result is nil. The call outlives ctx, because each
// connection that is counted needs a call of detach.
func (k *keeper) attach(ctx context.Context, number string) (has *hold, err error) {
	err = k.call(context.WithoutCancel(ctx), func(now time.Duration) {
		if k.hold != nil && k.hold.number == number && k.hold.phase(now) != lost {
			has = k.hold
			has.streams++
		}
	})
	return has, err
}

// detach takes in the end of a connection by which the program showed that it lives. That end
// proves nothing about the program, so only the renewals end.
func (k *keeper) detach(h *hold) {
	_ = k.call(context.Background(), func(time.Duration) { h.streams-- })
}

// defaultBeats is the time between two heartbeats of a program that states none. The clients
// of metaparticle/sync send one every 10 s.
const defaultBeats = 30 * time.Second

// mostBids bounds the bids of one claim.
const mostBids = 256
