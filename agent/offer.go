// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
)

// mostTries bounds the attempts to write one offer. An attempt conflicts if another pod has
// meanwhile written an offer or an ask. After [api.MostOffers] offers this pod need not offer,
// so a pod seldom needs more attempts.
const mostTries = 5

// offerPause is the least average time between two offers of a pod. offerBurst is the number of
// offers that a pod may write in direct succession. Without these bounds, a thief of the holder's
// rights could cause many writes by announcing a new leave many times a second.
const (
	offerPause = 10 * time.Second
	offerBurst = 3
)

// offerer writes the pod's offers to stay Ready into the next Lease of the pod's slot.
type offerer struct {
	requests *requests
	// leave identifies the leave of the holder during which this pod has offered. The field is empty
	// once the Lease of the slot shows another leave, or none.
	leave string
	// giveUp ends the attempts to write the offer for that leave; nil without an offer.
	giveUp context.CancelFunc
	// pace bounds the rate of the pod's offers.
	pace pace.Pace
}

func newOfferer(q *requests) *offerer {
	return &offerer{requests: q, pace: pace.Pace{Every: offerPause, Burst: offerBurst}}
}

// endExcept ends the attempts to write the pod's offer, unless the offer is for the given leave. The
// argument "leave" is the leave that the Lease of the slot shows; empty if there is none. The next
// Lease keeps offers for one leave only. So a late write of an old offer could otherwise remove the
// offers for a later leave.
func (o *offerer) endExcept(leave string) {
	if o.giveUp != nil && leave != o.leave {
		o.giveUp()
		o.leave, o.giveUp = "", nil
	}
}

// send writes the offer for the leave after the given pause, unless endExcept ends the attempts
// first.
func (o *offerer) send(ctx context.Context, leave string, offer api.Offer, pause time.Duration) {
	q := o.requests
	o.leave = leave
	ctx, o.giveUp = context.WithCancel(ctx)
	q.group.Go(func() {
		sleep(ctx, pause)
		if err := q.writeOffer(ctx, leave, offer); err != nil && ctx.Err() == nil {
			q.unit.config.Log.Warn("offer is not written", "leave", leave, "err", err)
		}
	})
}

// writeOffer adds the offer to the next Lease, unless this pod, or enough other pods, have already
// offered.
func (q *requests) writeOffer(ctx context.Context, leave string, offer api.Offer) error {
	ctx, cancel := context.WithTimeout(ctx, q.timeout)
	defer cancel()
	c, err := q.unit.config, error(nil)
	for range mostTries {
		var base *kube.Lease
		if base, err = c.API.GetLease(ctx, api.NextLease(c.Slots[0])); err != nil {
			return err
		}
		l, more := offerOn(base, leave, offer, c.Wall())
		if !more {
			return nil
		}
		if _, err = c.API.UpdateLease(ctx, l); !errors.Is(err, kube.ErrConflict) {
			return err
		}
	}
	return err
}

// offerOn returns the next Lease with one more offer to the leave. The result "more" is false if
// this pod, or enough other pods, have already offered. An ask names its pod as the holder of
// the next Lease. An agent may write only its own identity as the holder, so the offer replaces
// the ask. The pod whose ask was replaced writes its ask again.
func offerOn(base *kube.Lease, leave string, offer api.Offer, wall time.Time) (l *kube.Lease, more bool) {
	offers := api.ParseOffers(base.Annotations[api.OffersAnnotation])
	if offers.Leave != leave {
		offers = api.Offers{Leave: leave}
	}
	if len(offers.Pods) >= api.MostOffers || offers.Of(offer.Identity) {
		return nil, false
	}
	offers.Pods = append(offers.Pods, offer)
	l = base.Clone()
	l.Annotations = maps.Clone(base.Annotations)
	if l.Annotations == nil {
		l.Annotations = map[string]string{}
	}
	l.Annotations[api.OffersAnnotation] = offers.String()
	delete(l.Annotations, api.RevisionAnnotation)
	l.DurationSeconds, l.RenewTime = 1, wall
	if l.Holder != offer.Identity {
		l.Holder, l.AcquireTime = offer.Identity, wall
	}
	return l, true
}
