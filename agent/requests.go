// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/claim"
	"github.com/metaparticle-io/metaparticle/agent/courier"
	"github.com/metaparticle-io/metaparticle/agent/show"
)

// posts carries functions from other goroutines to the loop. The loop calls each function with
// the instant at which the loop received it.
type posts chan func(now time.Duration)

// post hands f to the loop, or drops f when ctx ends.
func (p posts) post(ctx context.Context, f func(now time.Duration)) {
	select {
	case p <- f:
	case <-ctx.Done():
	}
}

// requests sends the requests of the agent's loop. If a request comes from an action of the
// claim, requests passes that action to the courier, which sends the request.
type requests struct {
	unit    *unit
	posts   posts
	group   *sync.WaitGroup
	timeout time.Duration
	courier *courier.Courier
	// checked is the last hold that needs no further check for the pod's deletion: the check has
	// begun, or the hold needs none.
	checked string
}

func newRequests(u *unit, p posts, group *sync.WaitGroup) *requests {
	q := &requests{unit: u, posts: p, group: group, timeout: u.self.Budget.RequestTimeout}
	q.courier = courier.New(courier.Config{
		Leases: u.config.API, Claim: u.claim, Timeout: q.timeout, Post: p.post, Group: group, Answered: q.answered, Log: u.config.Log,
		Prompt: u.config.Forwarder != nil,
	})
	return q
}

// execute sends the request that an action of the claim needs.
func (q *requests) execute(ctx context.Context, a claim.Action) {
	if a.Kind != claim.Acquire {
		q.courier.Execute(ctx, a)
		return
	}
	if !a.Resumed {
		q.unit.shims.Begin(a.Record.Hold)
		q.unit.shims.Forget(q.unit.claim.Named)
	}
	q.acquire(ctx, a)
}

// acquire sends an acquiring write. For a new hold, acquire also checks whether this pod is being
// deleted. If the last release names this pod as successor, the check does not delay the grant.
// Either [requests.checkAhead] has just found that the pod is not being deleted, or acquire sends
// the write and the check at the same time. If the release does not name this pod, several
// standbys may send the write, and only the pod whose write is stored sends the check.
func (q *requests) acquire(ctx context.Context, a claim.Action) {
	check := func() { q.checkDeletion(ctx, a.Record.Hold) }
	switch named := q.unit.claim.Record(a.Slot).Successor == q.unit.self.Identity; {
	case a.Resumed, named && q.unit.deletion.clearedAhead(q.unit.config.Clock()):
		q.checked = a.Record.Hold
		q.courier.Execute(ctx, a)
	case named:
		q.courier.Execute(ctx, a)
		check()
	default:
		q.courier.Write(ctx, a, check)
	}
}

// checkAhead checks whether the pod is being deleted, while the hold of another pod still lasts.
// The standby expects the slot after that hold. The method ReadDeletion sends a patch of the pod.
// After the hold, this patch would compete with the acquiring write for the API server's
// processors.
func (q *requests) checkAhead(ctx context.Context) {
	u := q.unit
	began := u.deletion.aheadAt
	q.group.Go(func() {
		bounded, cancel := context.WithTimeout(ctx, q.timeout)
		defer cancel()
		pod, err := u.config.API.ReadDeletion(bounded, u.config.PodName)
		q.posts.post(ctx, func(time.Duration) {
			u.deletion.learn("", pod.Deleted || gone(err))
			u.deletion.cleared = err == nil && !pod.Deleted && began == u.deletion.aheadAt
		})
	})
}

// checkDeletion checks whether the pod is being deleted. The grant waits for the answer, which
// normally comes at about the same time as the answer to the acquiring write. Without an
// answer, the grant waits no longer than Budget.Retry.
func (q *requests) checkDeletion(ctx context.Context, hold string) {
	u := q.unit
	q.checked = hold
	number := u.deletion.beginCheck()
	q.group.Go(func() {
		bounded, cancel := context.WithTimeout(ctx, min(q.timeout, u.self.Budget.Retry))
		defer cancel()
		pod, err := u.config.API.ReadDeletion(bounded, u.config.PodName)
		if err != nil {
			u.config.Log.Debug("deletion is not known", "hold", hold, "err", err)
		}
		q.posts.post(ctx, func(time.Duration) { u.deletion.endCheck(number, hold, pod.Deleted || gone(err)) })
	})
}

// learnDeletion reads the pod once, if only the pod's deletion can explain the end of the
// application. The release does not wait for the answer.
func (q *requests) learnDeletion(ctx context.Context) {
	u := q.unit
	if q.causeOfEnd(u.ended) != stoppedFromOutside {
		return
	}
	q.group.Go(func() {
		bounded, cancel := context.WithTimeout(ctx, q.timeout)
		defer cancel()
		if pod, err := u.config.API.ReadDeletion(bounded, u.config.PodName); err == nil {
			q.posts.post(ctx, func(time.Duration) { u.deletion.learn("", pod.Deleted) })
		}
	})
}

// answered counts a write in the metrics, and reports a release, or the failure of any request, in
// the log. A release also causes an Event.
func (q *requests) answered(a claim.Action, err, refusal error) {
	count(q.unit.metrics, a, err)
	log := q.unit.config.Log
	switch {
	case a.Kind == claim.Release && refusal == nil:
		log.Info("released", "lease", a.Slot, "hold", a.Hold)
		q.unit.events.Released(a.Slot, q.causeOfEnd(a.Hold))
	case refusal == nil:
	case a.Kind == claim.Renew:
		log.Warn("not renewed", "lease", a.Slot, "hold", a.Record.Hold, "err", refusal)
	case a.Kind == claim.Read:
		log.Warn("not read", "lease", a.Slot, "err", refusal)
	default:
		log.Debug("write was not stored", "lease", a.Slot, "err", refusal)
	}
}

// stoppedFromOutside is the cause of an end that neither the agent nor the application has caused.
const stoppedFromOutside = "the application was stopped from outside"

// causeOfEnd describes for people why a hold has ended without an order of the agent. If the agent
// has ordered the end, the result is empty.
func (q *requests) causeOfEnd(hold string) string {
	u := q.unit
	completed, failed := u.shims.Outcome(hold)
	switch {
	case hold == "" || hold != u.ended:
		return ""
	case u.deletion.known:
		return "this pod is being deleted"
	case failed:
		return "the application has failed"
	case completed:
		return "the application has ended with exit code 0"
	}
	return stoppedFromOutside
}

// count counts the answer to a write in the metrics.
func count(m *show.Metrics, a claim.Action, err error) {
	switch a.Kind {
	case claim.Renew:
		m.Renewed(a.Sent(), err)
	case claim.Acquire, claim.Release:
		m.Wrote(err)
	default: // the metrics count only writes
	}
}
