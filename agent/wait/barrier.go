// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package wait

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
)

// leaving bounds the attempts to release the Lease after the wait. A Lease that is not released
// expires.
const leaving = 2 * time.Second

// Barrier makes the pod arrive at the barrier, and waits until the barrier is open. If ctx ends
// first, Barrier releases the pod's Lease and returns the cause of that end.
func Barrier(ctx context.Context, c BarrierConfig) error {
	budget, err := api.NewBudget(c.Duration)
	switch {
	case err != nil:
		return fmt.Errorf("barrier: %w", err)
	case c.API == nil || c.Log == nil || c.Random == nil || c.Clock == nil || len(c.Leases) == 0:
		return errors.New("barrier: no API, log, randomness, clock or Leases")
	}
	random := rand.New(c.Random)
	a := newArrival(c, budget, rand.New(rand.NewPCG(random.Uint64(), random.Uint64())))
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		defer stop()
		a.run(waiting)
	}()
	// The watch of [Conditions] shows at once that the barrier is open. If that watch is silent, the
	// method a.run later reads that the barrier is open, and ends this wait.
	err = Conditions(waiting, Config{
		API: c.API, Conditions: []api.Condition{{Lease: c.Leases[0], Opened: len(c.Leases)}},
		PodName: c.PodName, PodUID: c.PodUID, Log: c.Log, Random: rand.NewPCG(random.Uint64(), random.Uint64()),
	})
	stop()
	<-gone
	if a.open {
		err = nil
	}
	if err == nil && c.Opened != nil {
		c.Opened()
	}
	if ctx.Err() != nil && err != nil {
		err = fmt.Errorf("wait at the barrier: %w", context.Cause(ctx))
	}
	leaves, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaving)
	defer cancel()
	a.leave(leaves)
	return err
}

// BarrierAPI has the requests that a wait at a barrier sends. [kube.Client] documents these requests. The
// wait sends them concurrently.
type BarrierAPI interface {
	API
	// UpdateLease replaces the Lease only if its state is still the one that the pod has read.
	UpdateLease(ctx context.Context, lease *kube.Lease) (*kube.Lease, error)
}

// BarrierConfig has the barrier at which the pod waits, and what the wait needs.
type BarrierConfig struct {
	API BarrierAPI
	// Leases are the Leases of the barrier, one for each pod that must arrive. The first Lease
	// gets the record that the barrier is open.
	Leases []string
	// Duration is the lease duration: for this time a pod that has gone still counts.
	Duration time.Duration
	// PodName and PodUID identify the pod, in its Lease and its Events.
	PodName, PodUID string
	// Clock returns the instant of CLOCK_BOOTTIME. Clock may be called concurrently.
	Clock func() time.Duration
	// Counts reports whether the pod waits at the instant "now". A pod that does not wait sends no
	// write but its release. Nil means that the pod waits for as long as [Barrier] runs.
	Counts func(now time.Duration) bool
	// Opened is called once the barrier is known to be open, before the pod releases its Lease. So a
	// program begins without waiting for that write. Nil means that nobody asks.
	Opened func()
	// Log receives a line for each notice. Its Write may be called concurrently, and must not
	// block.
	Log io.Writer
	// Random is the only source of randomness.
	Random rand.Source
}

// arrival acquires one of the barrier's Leases, and renews that Lease. If that Lease is the first
// Lease of the barrier, arrival also opens the barrier.
type arrival struct {
	BarrierConfig
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

func newArrival(c BarrierConfig, budget api.Budget, random *rand.Rand) *arrival {
	return &arrival{
		BarrierConfig: c, budget: budget, random: random, identity: api.Identity(c.PodName, c.PodUID),
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
