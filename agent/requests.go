// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/claim"
	"github.com/metaparticle-io/metaparticle/agent/kube"
)

// posts carries functions from other goroutines to the loop. The loop calls each with
// the instant at which the loop received it.
type posts chan func(now time.Duration)

// post hands f to the loop, or drops it when ctx ends.
func (p posts) post(ctx context.Context, f func(now time.Duration)) {
	select {
	case p <- f:
	case <-ctx.Done():
	}
}

// requests carries the actions of a claim to the API server, and the answers back to
// the claim.
type requests struct {
	unit    *unit
	posts   posts
	group   *sync.WaitGroup
	timeout time.Duration
	// leases has, for each slot, the Lease that the claim's next write replaces. A
	// write keeps the fields that the claim does not know.
	leases map[string]*kube.Lease
	// looks has, for each slot, the function that ends the present look at the slot.
	looks map[string]context.CancelFunc
}

func newRequests(u *unit, p posts, group *sync.WaitGroup) *requests {
	return &requests{
		unit: u, posts: p, group: group, timeout: u.self.Budget.RequestTimeout,
		leases: map[string]*kube.Lease{}, looks: map[string]context.CancelFunc{},
	}
}

// carry sends the request of an action.
func (q *requests) carry(ctx context.Context, a claim.Action) {
	switch a.Kind {
	case claim.Look:
		q.look(ctx, a)
	case claim.EndLook:
		q.looks[a.Slot]()
	case claim.StandBack:
		q.unit.config.Log.Info("giving slots back", "missing", a.Slot, "hold", a.Hold)
	case claim.Read:
		q.send(ctx, a, func(ctx context.Context) (*kube.Lease, error) { return q.unit.config.API.GetLease(ctx, a.Slot) }, nil)
	case claim.Acquire:
		if !a.Resumed {
			q.unit.shims.Begin(a.Record.Hold)
			q.unit.shims.Forget(q.unit.claim.Named)
		}
		q.acquire(ctx, a)
	case claim.Renew, claim.Release:
		q.write(ctx, a, nil)
	}
}

// acquire sends an acquiring write. For a hold that is not resumed, acquire also checks
// whether the pod is being deleted. If a release names this pod, the check goes beside the
// write, so the grant comes no later. Otherwise other standbys write, too, and only the pod
// whose write is stored checks.
func (q *requests) acquire(ctx context.Context, a claim.Action) {
	check := func() { q.checkDeletion(ctx, a.Record.Hold) }
	switch named := q.unit.claim.Record(a.Slot).Successor == q.unit.self.Identity; {
	case a.Resumed:
		q.write(ctx, a, nil)
	case named:
		q.write(ctx, a, nil)
		check()
	default:
		q.write(ctx, a, check)
	}
}

// write sends a write. The loop calls stored, which may be nil, once the API server has stored
// the write.
func (q *requests) write(ctx context.Context, a claim.Action, stored func()) {
	l := leaseOf(q.leases[a.Slot], a.Record)
	q.send(ctx, a, func(ctx context.Context) (*kube.Lease, error) { return q.unit.config.API.UpdateLease(ctx, l) }, stored)
}

// checkDeletion asks the API server whether the pod is being deleted, and the grant waits
// for the answer. The API server stores the acquiring write at about the same time, so the
// answer normally comes soon. Without an answer, the grant waits no longer than Budget.Retry.
func (q *requests) checkDeletion(ctx context.Context, hold string) {
	u := q.unit
	number := u.deletion.begin()
	q.group.Go(func() {
		bounded, cancel := context.WithTimeout(ctx, min(q.timeout, u.self.Budget.Retry))
		defer cancel()
		pod, err := u.config.API.ReadPod(bounded, u.config.PodName)
		if err != nil {
			u.config.Log.Debug("deletion is not known", "hold", hold, "err", err)
		}
		q.posts.post(ctx, func(time.Duration) { u.deletion.end(number, hold, pod.Deleted || gone(err)) })
	})
}

// send sends a request and hands its answer to the claim. The loop calls done, which
// may be nil, unless the answer is an error.
func (q *requests) send(ctx context.Context, a claim.Action, request func(context.Context) (*kube.Lease, error), done func()) {
	q.group.Go(func() {
		bounded, cancel := context.WithTimeout(ctx, q.timeout)
		defer cancel()
		l, err := request(bounded)
		q.posts.post(ctx, func(now time.Duration) {
			q.answered(now, a, l, err)
			if err == nil && done != nil {
				done()
			}
		})
	})
}

// answered hands the answer of a read, or of a write, to the claim. The log, the metrics
// and an Event report the outcome.
func (q *requests) answered(now time.Duration, a claim.Action, l *kube.Lease, err error) {
	switch a.Kind {
	case claim.Renew:
		q.unit.metrics.Renewed(err)
	case claim.Acquire, claim.Release:
		q.unit.metrics.Wrote(err)
	default: // a read is no write
	}
	refusal := q.unit.claim.Answered(now, a, answerOf(l, err))
	q.keep(a.Slot, l)
	log := q.unit.config.Log
	switch {
	case a.Kind == claim.Release && refusal == nil:
		log.Info("released", "lease", a.Slot, "hold", a.Hold)
		q.unit.events.Released(a.Slot)
	case refusal == nil:
	case a.Kind == claim.Renew:
		log.Warn("not renewed", "lease", a.Slot, "hold", a.Record.Hold, "err", refusal)
	case a.Kind == claim.Read:
		log.Warn("not read", "lease", a.Slot, "err", refusal)
	default:
		log.Debug("write was not stored", "lease", a.Slot, "err", refusal)
	}
}

// keep stores the Lease for the slot's next write, if that write replaces this version of
// the Lease.
func (q *requests) keep(slot string, l *kube.Lease) {
	if l == nil {
		return
	}
	if r := q.unit.claim.Record(slot); r.UID == l.UID && r.Version == l.ResourceVersion {
		q.leases[slot] = l
	}
}

// look first reads the Lease, unless the look continues from a version. After that, the
// function watches the Lease until the watch ends.
func (q *requests) look(ctx context.Context, a claim.Action) {
	ctx, cancel := context.WithCancel(ctx)
	q.looks[a.Slot] = cancel
	q.group.Go(func() {
		version, err := a.From, error(nil)
		if version == "" {
			version, err = q.read(ctx, a)
		}
		watch := func(from string) error {
			return q.unit.config.API.WatchLease(ctx, a.Slot, from, func(e kube.WatchEvent) {
				version = e.ResourceVersion
				q.posts.post(ctx, func(now time.Duration) { q.watched(now, a, e) })
			})
		}
		if err == nil {
			err = watch(version)
		}
		if errors.Is(err, kube.ErrGone) && a.From == "" {
			// The Lease was written so long ago that the server has forgotten its
			// version. A watch without a version begins with the present Lease.
			q.posts.post(ctx, func(now time.Duration) { a.WatchSent(now) })
			err = watch("")
		}
		q.posts.post(ctx, func(now time.Duration) {
			cancel()
			a.LookEnded(now, version, answerOf(nil, err))
			if err != nil {
				q.unit.config.Log.Debug("lease is out of sight", "lease", a.Slot, "err", err)
			}
		})
	})
}

// read reads the Lease, and returns the version from which a watch can continue.
func (q *requests) read(ctx context.Context, a claim.Action) (version string, err error) {
	bounded, cancel := context.WithTimeout(ctx, q.timeout)
	defer cancel()
	l, err := q.unit.config.API.GetLease(bounded, a.Slot)
	if err != nil {
		return "", err
	}
	q.posts.post(ctx, func(now time.Duration) {
		a.Read(now, recordOf(l))
		q.keep(a.Slot, l)
	})
	return l.ResourceVersion, nil
}

// watched hands an event of a watch to the claim.
func (q *requests) watched(now time.Duration, a claim.Action, e kube.WatchEvent) {
	switch {
	case e.Lease == nil:
	case e.Type == kube.Deleted:
		q.unit.config.Log.Warn("lease is gone", "lease", a.Slot)
		a.Gone(now)
	default:
		a.Watched(now, recordOf(e.Lease))
		q.keep(a.Slot, e.Lease)
	}
}
