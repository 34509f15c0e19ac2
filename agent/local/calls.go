// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// errEnded means that the loop of a claim has ended.
var errEnded = errors.New("local: the agent stops")

// errEnds ends a call for several claims. Either a person wants the program to give one of the
// call's holds back, or the pod has lost such a hold.
var errEnds = errors.New("local: a hold ends")

// mostBids bounds the bids of one claim, and the calls that wait at one barrier.
const mostBids = 256

// calls carries the calls of programs to the loop of one claim.
type calls struct{ *keeper }

// call makes the loop call f, and waits for the end of that call. If the result is an error,
// the loop has not called f, and will not.
func (k calls) call(ctx context.Context, f func(now time.Duration)) error {
	done := make(chan struct{})
	g := func(now time.Duration) {
		f(now)
		close(done)
	}
	select {
	case k.posts <- g:
		<-done
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-k.ended:
		return errEnded
	}
}

// bidFor bids for the slot, and waits for another holder for at most the given duration. A duration
// of zero belongs to a bid whose field "now" is true. Such a bid waits only for the API server, and
// for at most [calls.patience]. A bid with a short wait becomes such a bid at the end of the wait.
// Otherwise the bid could fail although no pod has the slot.
func (k calls) bidFor(ctx context.Context, b *bid, wait time.Duration) outcome {
	ctx, cancel := context.WithTimeout(ctx, max(wait, k.patience()))
	defer cancel()
	if !b.now && wait < k.patience() {
		defer time.AfterFunc(wait, func() {
			_ = k.call(ctx, func(time.Duration) { b.now = true })
		}).Stop()
	}
	return k.acquire(ctx, b)
}

// watch makes the agent watch the Leases until the caller calls the resulting function.
// Afterwards the agent watches for another minute ([interest]).
func (k calls) watch() (end func()) {
	count := func(n int) {
		_ = k.call(context.Background(), func(now time.Duration) {
			k.quiet, k.interestedUntil = true, now+interest
			k.watchers += n
		})
	}
	count(1)
	return func() { count(-1) }
}

// patience returns how long a call waits for the API server.
func (k calls) patience() time.Duration { return patienceOf(k.self.Budget) }

// patienceOf returns how long, with the given budget, a call waits for the API server.
func patienceOf(b api.Budget) time.Duration { return min(4*b.RequestTimeout, mostPatience) }

// mostPatience bounds the result of [patienceOf] if the lease duration is long.
const mostPatience = 10 * time.Second

// acquire bids for the slot, and waits for the outcome. If ctx ends first, acquire withdraws
// the bid, and the program never learns of a hold.
func (k calls) acquire(ctx context.Context, b *bid) outcome {
	b.done = make(chan outcome, 1)
	err := k.call(ctx, func(now time.Duration) {
		switch {
		case k.stopping:
			b.done <- outcome{problem: stoppingProblem}
		case b.writes && k.hold != nil && !k.hold.bid.writes && k.hold.phase(now) != lost:
			b.done <- outcome{problem: upgradeProblem}
		case len(k.bids) >= mostBids:
			b.done <- outcome{problem: tooManyProblem}
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

// giveUp withdraws a bid. If the bid has got a hold meanwhile, and no program knows that hold, the
// agent releases the slot. The function giveUp waits for the loop without a limit, because a bid
// that stayed in the list could get a hold that nobody ends.
func (k calls) giveUp(b *bid) outcome {
	o := outcome{problem: unavailableProblem}
	_ = k.call(context.Background(), func(time.Duration) { //nolint:contextcheck // the call outlives the bid
		k.bids = slices.DeleteFunc(k.bids, func(other *bid) bool { return other == b })
		if k.hold != nil && k.hold.bid == b && (k.hold.owed || !k.hold.told) {
			k.hold.returned = true
		}
		if problem := k.obstacle(b); problem != nil {
			o.problem = problem
		}
	})
	return o
}

// beat remembers a heartbeat of the program for the hold with the given number. If the pod does not
// have that hold, the second result is false.
func (k calls) beat(ctx context.Context, number string) (answer holding, has bool, err error) {
	err = k.call(ctx, func(now time.Duration) {
		if k.hold == nil || k.hold.number != number || k.hold.phase(now) == lost {
			return
		}
		k.quiet = true // a heartbeat does not change the answers to other calls
		k.hold.beat(now)
		k.tie(true)
		answer, has = newHolding(k.of, k.hold, now), true
	})
	return answer, has, err
}

// giveBack ends the hold with the number, if the pod has it. If that hold has already ended, the
// agent now releases the slot immediately, because the work under the hold has ended, too.
func (k calls) giveBack(ctx context.Context, number string) error {
	return k.call(ctx, func(time.Duration) {
		if k.hold != nil && k.hold.number == number {
			k.hold.returned = true
		} else if own := k.claim.Own(number); own != nil {
			own.Live = false // the hold ended earlier, and now its work has ended, too
		}
	})
}

// attach counts a connection by which the program shows that it lives. The result is the hold
// with the number; nil if the pod does not have that hold. Unless the result is nil, the caller
// must call detach at the end of the connection.
func (k calls) attach(ctx context.Context, number string) (has *hold, err error) {
	err = k.call(ctx, func(now time.Duration) {
		if k.hold != nil && k.hold.number == number && k.hold.phase(now) != lost {
			has = k.hold
			has.streams++
			k.tie(true)
		}
	})
	return has, err
}

// detach reduces the number of the hold's connections, because a connection has ended. That end
// does not prove that the program has stopped, so the agent does not release the slot.
func (k calls) detach(h *hold) {
	_ = k.call(context.Background(), func(time.Duration) { h.streams-- })
}
