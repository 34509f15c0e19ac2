// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"
)

// errEnded means that the loop of a claim has ended.
var errEnded = errors.New("local: the agent stops")

// errAsked means that the pod is to give back a hold, or has lost that hold.
var errAsked = errors.New("local: a hold ends")

// mostBids bounds the bids of one claim.
const mostBids = 256

// calls carries the calls of programs to the loop of one claim.
type calls struct{ *keeper }

// call lets the loop call f, and waits for the end of that call. If the result is an error, the
// loop does not call f.
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

// bidFor bids for the slot, and waits for at most the time wait. A bid that does not wait for
// another pod still waits for some requests to the API server.
func (k calls) bidFor(ctx context.Context, b *bid, wait time.Duration) outcome {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(wait, k.patience()))
	defer cancel()
	return k.acquire(ctx, b)
}

// patience returns how long a call waits for the API server.
func (k calls) patience() time.Duration { return min(4*k.self.Budget.RequestTimeout, mostPatience) }

// mostPatience bounds [calls.patience] under a long lease.
const mostPatience = 10 * time.Second

// acquire bids for the slot, and waits for the outcome. If ctx ends first, the program never
// learns of a hold.
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

// giveUp withdraws a bid. A hold that the bid has got meanwhile was told to no program, so the
// agent releases the slot. However late the loop is, the call waits for the
// loop: a bid that stays would hold for ever.
func (k calls) giveUp(b *bid) outcome {
	o := outcome{problem: unavailableProblem}
	_ = k.call(context.Background(), func(time.Duration) { //nolint:contextcheck // the call outlives the bid
		k.bids = slices.DeleteFunc(k.bids, func(other *bid) bool { return other == b })
		if k.hold != nil && k.hold.bid == b && !k.hold.told {
			k.hold.returned = true
		}
		if problem := k.obstacle(b); problem != nil {
			o.problem = problem
		}
	})
	return o
}

// beat takes in a heartbeat of the program for the hold with the number. The result has is false
// if the pod does not have that hold.
func (k calls) beat(ctx context.Context, number string) (answer holding, has bool, err error) {
	err = k.call(ctx, func(now time.Duration) {
		if k.hold == nil || k.hold.number != number || k.hold.phase(now) == lost {
			return
		}
		k.quiet = true // a heartbeat changes nothing that other calls see
		k.hold.beat(now)
		answer, has = newHolding(k.of, k.hold, now), true
	})
	return answer, has, err
}

// giveBack ends the hold with the number, if the pod has it. If that hold has ended already, the
// agent releases the slot without waiting for the Lease to expire.
func (k calls) giveBack(ctx context.Context, number string) error {
	return k.call(ctx, func(time.Duration) {
		if _, ours := k.numbers[number]; k.hold != nil && k.hold.number == number {
			k.hold.returned = true
		} else if ours {
			k.numbers[number] = false // the hold has ended, and now its work has, too
		}
	})
}

// attach takes in a connection by which the program shows that it lives, if the pod has the
// hold with the number. Otherwise the result is nil. Each connection that counts needs
// a call of detach.
func (k calls) attach(ctx context.Context, number string) (has *hold, err error) {
	err = k.call(ctx, func(now time.Duration) {
		if k.hold != nil && k.hold.number == number && k.hold.phase(now) != lost {
			has = k.hold
			has.streams++
		}
	})
	return has, err
}

// detach takes in the end of a connection by which the program showed that it lives. That end
// proves nothing about the program, so only the renewals end.
func (k calls) detach(h *hold) {
	_ = k.call(context.Background(), func(time.Duration) { h.streams-- })
}
