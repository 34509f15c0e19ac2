// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"cmp"
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
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

// queryKeys are the keys of all queries of /v1.
var queryKeys = []string{"as", "by", "claims", "fence", "heartbeat", "stream", "type", "wait", "watch"}

// queryProblem returns the problem of a query that is malformed or ambiguous, or has an unknown key. A
// sound query has no problem. Package url drops the malformed parts of a query. A write whose query
// lacks its fence, or spells its name in another way, would be a write without a hold.
func queryProblem(u *url.URL) *problem {
	values, err := url.ParseQuery(u.RawQuery)
	for key, all := range values {
		switch {
		case len(slices.Compact(all)) > 1:
			return unclearProblem
		case strings.HasPrefix(u.Path, "/v1/") && !slices.Contains(queryKeys, key):
			return usageProblem("The query has an unknown key. Use only " + strings.Join(queryKeys, ", ") + ", in small letters.")
		}
	}
	if err != nil {
		return unclearProblem
	}
	return nil
}

var unclearProblem = usageProblem("The query is malformed, or has a key with two values. Send each key once, and encode its value (RFC 3986).")

// flagOf returns the value of a flag in the query, or a problem.
func flagOf(text, name string) (bool, *problem) {
	if text != "" && text != "true" && text != "false" {
		return false, usageProblem("The value of ?" + name + " is neither true nor false. Write one of the two.")
	}
	return text == "true", nil
}

// seconds returns the duration that text states. If text is empty, the result is the default in
// the argument "otherwise". If text is invalid, the second result is the problem.
func seconds(text string, otherwise time.Duration, name string) (time.Duration, *problem) {
	if text == "" {
		return otherwise, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > 24*time.Hour {
		return 0, usageProblem("The value of ?" + name + " is no duration between 0s and 24h. Write 30s or 5m.")
	}
	return d, nil
}

// writesAs reports whether the text, the value of ?as, asks for a read-write lock as its writer. If
// the claim does not permit the text, the second result is the problem.
func writesAs(of api.Claim, text string) (bool, *problem) {
	switch {
	case of.Kind != api.RWLock && text != "":
		return false, usageProblem("Only a read-write lock (rwlock) takes ?as. Leave it out.")
	case of.Kind == api.RWLock && mode(text) != asReader && mode(text) != asWriter:
		return false, usageProblem("A read-write lock has readers and a writer. Add ?as=reader or ?as=writer.")
	}
	return mode(text) == asWriter, nil
}

// leastBeats and mostBeats bound the time between two heartbeats. A heartbeat causes no request
// to the API server, so heartbeats may be frequent. But the agent renews the hold of a dead program
// until a heartbeat is overdue, so heartbeats must not be rare.
const (
	leastBeats = time.Second
	mostBeats  = 5 * time.Minute
)

// timesOf returns the longest wait of the bid, and the longest time between two heartbeats.
func timesOf(query url.Values) (wait, every time.Duration, p *problem) {
	wait, first := seconds(query.Get("wait"), 0, "wait")
	every, second := seconds(query.Get("heartbeat"), defaultBeats, "heartbeat")
	if p = cmp.Or(first, second); p == nil && (every < leastBeats || every > mostBeats) {
		p = usageProblem("The value of ?heartbeat is not between 1s and 5m. Write 30s or 1m.")
	}
	return wait, every, p
}
