// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package barrier

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
)

// arrival acquires one of the barrier's Leases, and renews that Lease. If that Lease is the first
// Lease of the barrier, arrival also opens the barrier.
type arrival struct {
	Config
	budget   api.Budget
	random   *rand.Rand
	identity string
	// failures counts the failed requests since the last stored write.
	failures int
	// held is the last stored version of the Lease by which the pod has arrived; nil before the
	// arrival. The field "renewed" is the instant at which the write of that version was sent. If
	// [arrival.find] has found the write, "renewed" is the instant of the read.
	held    *kube.Lease
	renewed time.Duration
	// unanswered are the renew times of the writes that the API server has not answered since the last
	// stored write. A later read may show that one of them is stored.
	unanswered []time.Time
	// open reports that the first Lease had the record that the barrier is open.
	open bool
	// surveys is the instant of the next call of [arrival.survey].
	surveys time.Duration
	// surveyed is the index of the last Lease that the survey under way has read; zero without
	// a survey.
	surveyed int
	// seen has what this pod's reads prove about each Lease, by the Lease's name.
	seen map[string]sight
	// next is the index of the Lease that [arrival.acquire] reads next.
	next int
}

func newArrival(c Config, budget api.Budget, random *rand.Rand) *arrival {
	return &arrival{
		Config: c, budget: budget, random: random, identity: api.Identity(c.PodName, c.PodUID),
		seen: map[string]sight{}, next: random.IntN(len(c.Leases)),
	}
}

// errAway means that the pod does not wait at present.
var errAway = errors.New("barrier: the pod does not wait")

// store sends a write of the Lease. If the write is stored, the time until the next renewal
// counts from the sending of this write. If the pod does not wait, store sends nothing, and
// returns errAway.
func (a *arrival) store(ctx context.Context, l *kube.Lease) error {
	l.RenewTime = time.Now().Truncate(time.Microsecond)
	ctx, cancel := context.WithTimeout(ctx, a.budget.Renew)
	defer cancel()
	sent := a.Clock()
	if a.Counts != nil && !a.Counts(sent) {
		return errAway
	}
	stored, err := a.API.UpdateLease(ctx, l)
	if err != nil {
		if !errors.Is(err, kube.ErrConflict) {
			a.unanswered = append(a.unanswered, l.RenewTime)
			a.unanswered = a.unanswered[max(0, len(a.unanswered)-mostUnanswered):]
		}
		return err
	}
	a.failures = 0
	a.held, a.renewed, a.unanswered = stored, sent, nil
	return nil
}

// mostUnanswered bounds the unanswered writes that an arrival remembers. A write takes longer than
// this many attempts only if the API server is practically away.
const mostUnanswered = 8

// find makes the Lease of a read the pod's Lease, if the Lease has the renew time of an unanswered
// write. The API server may store each write only after the pod has given up. Then the pod would
// otherwise write again and again, and never arrive. The next renewal counts from this read, so that a
// survey follows before that renewal.
func (a *arrival) find(l *kube.Lease) bool {
	stored := slices.ContainsFunc(a.unanswered, func(renewed time.Time) bool { return renewed.Equal(l.RenewTime) })
	if !stored || l.Holder != a.identity {
		return false
	}
	a.failures = 0
	a.held, a.renewed, a.unanswered = l, a.Clock(), nil
	return true
}

// reading is a read of one Lease, with its answer.
type reading struct {
	name string
	// sent reports that the read was sent. The fields "asked" and "answered" are the instants of the
	// read and of its answer.
	sent            bool
	asked, answered time.Duration
	lease           *kube.Lease
	err             error
}

// send reads a Lease, and changes no state. So the caller may send several reads at the same time.
func (a *arrival) send(ctx context.Context, name string) reading {
	ctx, cancel := context.WithTimeout(ctx, a.budget.Renew)
	defer cancel()
	r := reading{name: name, sent: true, asked: a.Clock()}
	r.lease, r.err = a.API.GetLease(ctx, name)
	r.answered = a.Clock()
	return r
}

// learn keeps what the read proves about the Lease's holder. If the Lease does not exist, the result
// has neither a UID nor a holder.
func (a *arrival) learn(r reading) (*kube.Lease, error) {
	l := r.lease
	switch {
	case errors.Is(r.err, kube.ErrNotFound):
		l = new(kube.Lease)
	case r.err != nil:
		return nil, r.err
	}
	a.seen[r.name] = a.seen[r.name].next(l, r.asked, r.answered)
	if r.name == a.Leases[0] {
		a.open = api.Opened(l.Annotations[api.OpenedAnnotation]) >= len(a.Leases)
	}
	return l, r.err
}

// read reads a Lease, and keeps what the read proves about the Lease's holder.
func (a *arrival) read(ctx context.Context, name string) (*kube.Lease, error) {
	return a.learn(a.send(ctx, name))
}

// recall reads the Lease by which the pod has arrived. If another pod holds that Lease, or if that
// Lease no longer exists, the pod must arrive again.
func (a *arrival) recall(ctx context.Context) {
	l, err := a.read(ctx, a.held.Name)
	switch {
	case err == nil && a.find(l):
	case err == nil && l.Holder == a.identity:
		a.held = l
	case err == nil || errors.Is(err, kube.ErrNotFound):
		a.held = nil
	}
}

// untilRenewal returns the time until the next renewal.
func (a *arrival) untilRenewal() time.Duration {
	return max(a.budget.Renew-(a.Clock()-a.renewed), 0) + time.Millisecond
}

// backOff returns the pause after a failure: at most the time between two renewals, and half as much again.
func (a *arrival) backOff() time.Duration {
	pause := min(pace.Backoff(a.failures), a.budget.Renew)
	a.failures++
	return a.spread(pause)
}

// spread returns a random duration between d and one and a half times d. Otherwise pods that
// began together would always send their requests together.
func (a *arrival) spread(d time.Duration) time.Duration {
	return d + time.Duration(a.random.Int64N(int64(d/2)))
}
