// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package barrier

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// shortestPause is the first pause after a failure. Most failures end within a second: enroll
// has not granted the right yet.
const shortestPause = 250 * time.Millisecond

// arrival acquires one of the barrier's Leases, and renews it. With the first Lease, the arrival
// also opens the barrier.
type arrival struct {
	Config
	budget   api.Budget
	random   *rand.Rand
	identity string
	// failures counts the failures since the last stored write.
	failures int
	// held is the Lease by which the pod has arrived, as it was stored last; nil before. The
	// field renewed is the instant at which that write was sent.
	held    *kube.Lease
	renewed time.Duration
	// open reports that the first Lease had the record of an open barrier.
	open bool
	// surveys is the instant of the next survey.
	surveys time.Duration
	// seen are the Leases of other pods, by name.
	seen map[string]sight
	// next is the index of the Lease that the pod reads next.
	next int
}

func newArrival(c Config, budget api.Budget, random *rand.Rand) *arrival {
	return &arrival{
		Config: c, budget: budget, random: random, identity: api.Identity(c.PodName, c.PodUID),
		seen: map[string]sight{}, next: random.IntN(len(c.Leases)),
	}
}

// run arrives, and stays until the barrier is open or ctx ends.
func (a *arrival) run(ctx context.Context) {
	for ctx.Err() == nil && !a.open {
		pause := a.step(ctx)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// step does what is due, and returns the pause until the next step.
func (a *arrival) step(ctx context.Context) time.Duration {
	switch {
	case a.held == nil:
		return a.acquire(ctx)
	case a.Clock()-a.renewed >= a.budget.Renew:
		return a.renew(ctx)
	case a.held.Name != a.Leases[0]:
		return a.untilRenewal()
	case a.Clock() < a.surveys:
		return min(a.surveys-a.Clock(), a.untilRenewal())
	}
	a.surveys = a.Clock() + a.survey(ctx)
	return 0
}

// untilRenewal returns the time until the next renewal.
func (a *arrival) untilRenewal() time.Duration {
	return max(a.budget.Renew-(a.Clock()-a.renewed), 0) + time.Millisecond
}

// acquire reads one Lease after the other, and takes the first that is free. If all of them are
// held, the pod looks again later.
func (a *arrival) acquire(ctx context.Context) time.Duration {
	for range a.Leases {
		name := a.Leases[a.next]
		l, err := a.read(ctx, name)
		if a.open {
			return 0
		}
		if err == nil && a.isFree(l) {
			return a.take(ctx, l)
		}
		if err != nil && !errors.Is(err, kube.ErrNotFound) || ctx.Err() != nil {
			return a.backOff()
		}
		a.next = (a.next + 1) % len(a.Leases)
	}
	return a.spread(a.budget.Renew)
}

// isFree reports whether the pod may take the Lease: nobody holds it, or its holder has not written
// it for as long as the Lease says. A Lease of this very pod comes from an earlier process.
func (a *arrival) isFree(l *kube.Lease) bool {
	switch {
	case api.PauseOf(l.Annotations) != "":
		return false
	case l.Holder == "" || l.Holder == a.identity:
		return true
	}
	duration := cmp.Or(time.Duration(l.DurationSeconds)*time.Second, a.Duration)
	return a.Clock()-a.seen[l.Name].since >= duration
}

// take writes the pod into the Lease. If another pod was faster, the next Lease follows at once. An
// error that proves nothing leads to another read of the same Lease.
func (a *arrival) take(ctx context.Context, l *kube.Lease) time.Duration {
	mine := l.Clone()
	if mine.Holder != a.identity {
		mine.Transitions++
		mine.AcquireTime = time.Now()
	}
	mine.Holder, mine.DurationSeconds = a.identity, int(a.Duration/time.Second)
	switch err := a.store(ctx, mine); {
	case errors.Is(err, kube.ErrConflict):
		a.next = (a.next + 1) % len(a.Leases)
	case err != nil:
		return a.backOff()
	}
	return 0
}

// renew writes the Lease again, and reads whether the barrier is open. If the write fails, the
// pod reads which pod holds.
func (a *arrival) renew(ctx context.Context) time.Duration {
	if a.store(ctx, a.held.Clone()) == nil {
		if a.held.Name != a.Leases[0] {
			_, _ = a.read(ctx, a.Leases[0])
		}
		return 0
	}
	a.recall(ctx)
	return a.backOff()
}

// recall reads the Lease by which the pod has arrived. If another pod holds it, or if the
// Lease is gone, the pod has to arrive again.
func (a *arrival) recall(ctx context.Context) {
	l, err := a.read(ctx, a.held.Name)
	switch {
	case err == nil && l.Holder == a.identity:
		a.held = l
	case err == nil || errors.Is(err, kube.ErrNotFound):
		a.held = nil
	}
}

// store sends a write. If the write was stored, the pod has arrived since the instant of its sending.
func (a *arrival) store(ctx context.Context, l *kube.Lease) error {
	l.RenewTime = time.Now()
	ctx, cancel := context.WithTimeout(ctx, a.budget.Renew)
	defer cancel()
	sent := a.Clock()
	stored, err := a.API.UpdateLease(ctx, l)
	if err != nil {
		return err
	}
	a.failures = 0
	a.held, a.renewed = stored, sent
	return nil
}

// read reads a Lease, and keeps what the read proves about its holder. A Lease that does not exist
// counts as a Lease without a UID and a holder.
func (a *arrival) read(ctx context.Context, name string) (*kube.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, a.budget.Renew)
	defer cancel()
	sent := a.Clock()
	l, err := a.API.GetLease(ctx, name)
	switch {
	case errors.Is(err, kube.ErrNotFound):
		l = new(kube.Lease)
	case err != nil:
		return nil, err
	}
	a.seen[name] = a.seen[name].next(l, sent, a.Clock())
	if name == a.Leases[0] {
		a.open = api.Opened(l.Annotations[api.OpenedAnnotation]) >= len(a.Leases)
	}
	return l, err
}

// leave releases the Lease, so that a pod that is gone counts no longer.
func (a *arrival) leave(ctx context.Context) {
	for range 2 {
		if a.held == nil || a.held.Holder != a.identity {
			return
		}
		free := a.held.Clone()
		free.Holder, free.RenewTime = "", time.Now()
		if _, err := a.API.UpdateLease(ctx, free); err == nil {
			return
		}
		a.recall(ctx)
	}
}

// backOff returns the pause after a failure. The pauses grow up to the period of renewals.
func (a *arrival) backOff() time.Duration {
	pause := shortestPause
	for range a.failures {
		pause = min(2*pause, a.budget.Renew)
	}
	if pause < a.budget.Renew {
		a.failures++
	}
	return a.spread(pause)
}

// spread returns a duration between the argument and one and a half times the argument, so that pods
// that began together do not stay together.
func (a *arrival) spread(d time.Duration) time.Duration {
	return d + time.Duration(a.random.Int64N(int64(d/2)))
}
