// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package barrier

import (
	"cmp"
	"context"
	"errors"
	"math"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// run acquires a Lease for the pod, and renews that Lease until the barrier is open or ctx ends.
func (a *arrival) run(ctx context.Context) {
	for ctx.Err() == nil && !a.open {
		pause := a.step(ctx)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// step does what is due now, and returns the pause until the next step.
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

// acquire reads one Lease after the other, and takes the first free Lease. If all Leases are held,
// the pod tries again later.
func (a *arrival) acquire(ctx context.Context) time.Duration {
	for range a.Leases {
		name := a.Leases[a.next]
		l, err := a.read(ctx, name)
		if a.open {
			return 0
		}
		if err == nil && a.find(l) {
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

// isFree reports whether the pod may take the Lease. A Lease is free if it has no holder, or if
// its holder has not renewed for the lease duration. A Lease that names this pod comes from an
// earlier process of the pod, and is free, too. A paused Lease is never free.
func (a *arrival) isFree(l *kube.Lease) bool {
	switch {
	case api.PauseOf(l.Annotations) != "":
		return false
	case l.Holder == "" || l.Holder == a.identity:
		return true
	}
	// A lease duration above the maximum comes from a client that is no agent. The pod waits only
	// for the maximum then.
	duration := min(cmp.Or(time.Duration(l.DurationSeconds)*time.Second, a.Duration), api.MaxLeaseDuration)
	return a.Clock()-a.seen[l.Name].since >= duration
}

// take makes this pod the holder of the Lease. If another pod was faster, this pod tries the
// next Lease at once. After any other error the write may have been stored, so the pod reads the
// same Lease again. The write of this pod that came first may also be an earlier unanswered one.
func (a *arrival) take(ctx context.Context, l *kube.Lease) time.Duration {
	mine := l.Clone()
	if mine.Holder != a.identity {
		// The API server refuses a larger number of transitions than [math.MaxInt32].
		mine.Transitions = min(mine.Transitions+1, math.MaxInt32)
		mine.AcquireTime = time.Now()
	}
	mine.Holder, mine.DurationSeconds = a.identity, int(a.Duration/time.Second)
	switch err := a.store(ctx, mine); {
	case errors.Is(err, kube.ErrConflict) && len(a.unanswered) == 0:
		a.next = (a.next + 1) % len(a.Leases)
	case errors.Is(err, kube.ErrConflict):
	case err != nil:
		return a.backOff()
	}
	return 0
}

// renew writes the Lease again. If that Lease is not the first Lease of the barrier, renew then
// reads the first Lease, which shows whether the barrier is open. If the write fails, renew reads
// which pod holds the Lease.
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

// leave releases the Lease, so that the barrier stops counting the pod.
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
