// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/agent/status"
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

// requests sends the requests about the pod's deletion, and learns of the main claim's writes.
type requests struct {
	unit    *unit
	posts   posts
	group   *sync.WaitGroup
	timeout time.Duration
	// checked is the last hold that needs no further check for the pod's deletion: the check has
	// begun, or the hold needs none.
	checked string
}

func newRequests(u *unit, p posts, group *sync.WaitGroup) *requests {
	q := &requests{unit: u, posts: p, group: group, timeout: u.self.Budget.RequestTimeout}
	c := u.config
	u.claim = q.elector(elector.Config{
		Claim:  elector.Claim{Slots: c.Slots, Any: c.Any, First: c.First, Shards: c.Shards, Run: c.Run, Self: u.self, OwnKernel: c.OwnKernel, Random: u.random},
		Prompt: c.Forwarder != nil, Sends: q.sends, Answered: q.answered,
	})
	return q
}

// elector returns the driver of a claim of the pod, for a configuration that has what differs between
// the claims.
func (q *requests) elector(c elector.Config) *elector.Elector {
	of := q.unit.config
	c.Leases, c.Post, c.Group, c.Log = of.API, q.posts.post, q.group, of.Log
	e := elector.New(c, of.Clock())
	q.unit.claims = append(q.unit.claims, e)
	return e
}

// sends prepares an acquiring or releasing write of the main claim. A new hold also needs a check whether this pod
// is being deleted. If the last release names this pod as successor, the check does not delay the
// grant: either [requests.checkAhead] has just found that the pod is not being deleted, or the check is
// sent with the write. If the release does not name this pod, several standbys may send the write,
// and only the pod that then holds sends the check ([hold.run]).
func (q *requests) sends(ctx context.Context, now time.Duration, a *elector.Action) {
	u, hold, last := q.unit, a.Record.Hold, q.unit.claim.Record(a.Slot)
	if a.Resumed {
		q.checked = hold
		return
	}
	a.Record.Rollout = u.rollout.text(now, u.config.Wall(), *a, last)
	if a.Kind == elector.Release {
		return
	}
	u.shims.Begin(hold)
	u.shims.Forget(u.claim.Named)
	switch named := last.Successor == u.self.Identity; {
	case named && u.deletion.clearedAhead(u.config.Clock()):
		q.checked = hold
	case named:
		q.checkDeletion(ctx, hold)
	default:
		q.checked = ""
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
func (q *requests) answered(a elector.Action, err, refusal error) {
	count(q.unit.metrics, a, err)
	log := q.unit.config.Log
	switch {
	case a.Kind == elector.Release && refusal == nil:
		log.Info("released", "lease", a.Slot, "hold", a.Hold)
		q.unit.events.Released(a.Slot, q.causeOfEnd(a.Hold))
	case refusal == nil:
	case a.Kind == elector.Renew:
		log.Warn("not renewed", "lease", a.Slot, "hold", a.Record.Hold, "err", refusal)
	case a.Kind == elector.Read:
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
func count(m *status.Metrics, a elector.Action, err error) {
	switch a.Kind {
	case elector.Renew:
		m.Renewed(a.Sent(), err)
	case elector.Acquire, elector.Release:
		m.Wrote(err)
	default: // the metrics count only writes
	}
}
