// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/agent/turn"
	"github.com/metaparticle-io/metaparticle/api"
)

// forbiddenPause is the time that the holder waits after the API server has forbidden a watch of a
// next Lease. Roles from earlier versions of enroll give no right to next Leases.
const forbiddenPause = time.Minute

// longestWatch is the longest time of one watch of a next Lease.
const longestWatch = 5 * time.Minute

// watchAfter is the time from the beginning of a hold until the holder watches the next Lease.
// Earlier, the work of the API server for that watch would delay the start of the application.
const watchAfter = 40 * time.Millisecond

// watchAsks watches the next Lease of the slot. The watch ends a moment after the call of end, so
// that the end of the watch does not delay the release of the slot.
func (s *state) watchAsks(ctx context.Context, slot string) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	next, begun := api.NextLease(slot), false
	see := func(l *kube.Lease) {
		s.posts.post(ctx, func(now time.Duration) { s.rollout.asks.see(now, l, s.claim.Record(slot).Version) })
	}
	s.group.Go(func() {
		sleep(ctx, watchAfter)
		_ = kube.Follow(ctx, kube.Following{ // the error is that of ctx
			// The first watch begins without a read, and no watch names a version: a next Lease is seldom
			// written, so the server may have forgotten the version, and the watch would end at once. The later
			// reads are for an API server that refuses all watches, and a proxy that ends all watches without an
			// error and without an event.
			Read: func(ctx context.Context) (string, error) {
				if !begun {
					begun = true
					return "", nil
				}
				ctx, cancel := context.WithTimeout(ctx, s.self.Budget.RequestTimeout)
				defer cancel()
				l, err := s.config.API.GetLease(ctx, next)
				if err == nil {
					see(l)
				} else if errors.Is(err, kube.ErrNotFound) {
					err = nil
				}
				return "", err
			},
			Watch: func(ctx context.Context, version string) error {
				return s.config.API.WatchLease(ctx, next, version, func(e kube.WatchEvent) {
					if e.Lease != nil && e.Type != kube.Deleted {
						see(e.Lease)
					}
				})
			},
			Longest: longestWatch, Forbidden: forbiddenPause,
			Failed: func(err error) { s.config.Log.Debug("next lease is out of sight", "lease", next, "err", err) },
		})
	})
	return func() { time.AfterFunc(elector.WatchEndsAfter, cancel) }
}

// sleep returns after the time in the argument "pause", or earlier at the end of ctx.
func sleep(ctx context.Context, pause time.Duration) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// asker writes the pod's ask into the next Lease of the pod's slot. Once the pod no longer asks, the
// asker removes the ask.
type asker struct {
	*state
	// lease is the next Lease from the last answer of the API server. The field is nil if the asker
	// must read the next Lease before its next write.
	lease *kube.Lease
	// written reports that the last write that the asker has sent was to store this pod's ask. The
	// field "writing" reports that a write of the next Lease is under way.
	written, writing bool
	// The field "at" is the instant of the next write of an ask.
	at time.Duration
	// err is the error of the last write; nil after a success.
	err error
}

// endHeld removes the ask of a pod that has become the holder, once the next write of the ask would
// be due. No pod acts upon that ask any more. Earlier, the removal would delay the start of the
// application. The result is the instant of the next decision.
func (a *asker) endHeld(ctx context.Context, now time.Duration) (wake time.Duration) {
	if a.written && now < a.at {
		return a.at
	}
	return a.ask(ctx, now, false)
}

// ask sends the write of the pod's ask when that write is due, or immediately the write that removes
// the ask. The result is the instant of the next decision. While the pod asks, the function repeats
// the write of the ask every [turn.Again], because only a fresh ask counts. A pod that asks anew
// waits as long, so a pod that often changes its decision sends few writes. The function does not
// repeat a removal that has failed, because the ask soon is no longer fresh. The holder answers an
// ask by a release of the slot.
func (a *asker) ask(ctx context.Context, now time.Duration, asks bool) (wake time.Duration) {
	switch {
	case a.writing || !asks && !a.written:
		return pace.Never
	case asks && now < a.at:
		return a.at
	case asks:
		a.at = now + turn.Again
	}
	a.writing, a.written = true, asks
	base := a.lease
	a.group.Go(func() {
		l, err := a.writeAsk(ctx, base, asks)
		a.posts.post(ctx, func(now time.Duration) {
			a.writing, a.lease, a.err = false, l, err
			if err != nil {
				a.at = min(a.at, now+a.pause(err))
				a.config.Log.Warn("next lease is not written", "asks", asks, "err", err)
			}
		})
	})
	return pace.Never
}

// pause returns the time from a failed write of the ask until the next attempt. The next
// attempt must come while the last stored ask is fresh. A holder that has left its Services
// yields only to a fresh ask. If the pod has no right to the next Lease, the pause is longer,
// because enroll must grant that right first.
func (s *state) pause(err error) time.Duration {
	if errors.Is(err, kube.ErrForbidden) {
		return turn.Again
	}
	return s.self.Budget.Retry
}

// writeAsk writes the pod's ask into the next Lease, or removes the ask. The argument "base" is
// the version of the Lease that the write replaces. Without a base, or after a conflict,
// writeAsk reads the Lease first. A conflict means that another pod has asked or offered. A pod
// does not remove the ask of another pod.
func (s *state) writeAsk(ctx context.Context, base *kube.Lease, asks bool) (l *kube.Lease, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.self.Budget.RequestTimeout)
	defer cancel()
	c := s.config
	for range 2 {
		if base == nil {
			if base, err = c.API.GetLease(ctx, api.NextLease(c.Slots[0])); err != nil {
				return nil, err
			}
		}
		if !asks && !mayCount(base, s.self.Identity) {
			return base, nil
		}
		l, err = c.API.UpdateLease(ctx, askOf(base, s.self.Identity, c, asks))
		if !errors.Is(err, kube.ErrConflict) {
			return l, err
		}
		base = nil
	}
	return nil, err
}

// mayCount reports whether a holder that has seen the next Lease may count an ask of the pod. The Lease has either that ask, or an offer, which replaces an ask and does not end the ask.
func mayCount(l *kube.Lease, identity string) bool {
	offered := l.Holder != "" && l.Annotations[api.RevisionAnnotation] == ""
	return l.Holder == identity || offered
}

// askOf returns a copy of base with the ask of the pod. If asks is false, the copy contains no ask.
func askOf(base *kube.Lease, identity string, c Config, asks bool) *kube.Lease {
	l := base.Clone()
	l.Annotations = map[string]string{}
	maps.Copy(l.Annotations, base.Annotations)
	l.Holder, l.DurationSeconds, l.RenewTime = "", 1, c.Wall()
	delete(l.Annotations, api.RevisionAnnotation)
	if asks {
		l.Holder, l.DurationSeconds = identity, int(turn.Fresh/time.Second)
		l.Annotations[api.RevisionAnnotation] = c.Revision.String()
		if base.Holder != identity {
			l.AcquireTime = l.RenewTime
		}
	}
	return l
}
