// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/leave"
	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
)

// mostTries bounds the attempts to write one offer. An attempt conflicts if another pod has
// meanwhile written an offer or an ask. After [api.MostOffers] offers this pod need not offer,
// so a pod seldom needs more attempts. A prepared pod makes at most mostTries rounds of these attempts.
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
	*state
	// leave identifies the leave of the holder during which this pod has offered. The field is empty
	// once the Lease of the slot shows another leave, or none.
	leave string
	// giveUp ends the attempts to write the offer for that leave; nil without an offer.
	giveUp context.CancelFunc
	// unready is the instant at which the successor learnt that the API server has stored its unready
	// status; zero before that. The field "told" reports that the pod tells the holder, in the field
	// Prepared of [api.Offer], that the pod is prepared. The field "told" also is true if the pod need
	// not tell, because the next Lease has enough offers of other pods.
	unready time.Duration
	told    bool
	// pace bounds the rate of the pod's offers. Once for each offer, the pod also tells the holder that
	// the pod is prepared.
	pace pace.Pace
}

func newOfferer(s *state) *offerer {
	return &offerer{state: s, pace: pace.Pace{Every: offerPause, Burst: offerBurst}}
}

// endExcept ends the attempts to write the pod's offer, unless the offer is for the given leave. The
// argument "leave" is the leave that the Lease of the slot shows; empty if there is none. The next
// Lease keeps offers for one leave only. So a late write of an old offer could otherwise remove the
// offers for a later leave.
func (o *offerer) endExcept(leave string) {
	if o.giveUp != nil && leave != o.leave {
		o.giveUp()
		o.leave, o.giveUp, o.unready, o.told = "", nil, 0, false
	}
}

// send writes the offer for the leave after the given pause, unless endExcept ends the attempts
// first.
func (o *offerer) send(ctx context.Context, leave string, offer api.Offer, pause time.Duration) {
	o.leave = leave
	ctx, o.giveUp = context.WithCancel(ctx)
	o.write(ctx, offer, pause)
}

// write writes the offer for the present leave after the given pause, unless ctx ends first. If the
// write of a prepared pod fails, write repeats the attempt a few times. The holder waits for that pod,
// but not for long.
func (o *offerer) write(ctx context.Context, offer api.Offer, pause time.Duration) {
	leave := o.leave
	o.group.Go(func() {
		for range mostTries {
			sleep(ctx, pause)
			enough, err := o.writeOffer(ctx, leave, offer)
			if err == nil {
				if enough {
					o.posts.post(ctx, func(time.Duration) { o.told = o.told || o.leave == leave })
				}
				return
			}
			if ctx.Err() != nil {
				return
			}
			o.config.Log.Warn("offer is not written", "leave", leave, "err", err)
			if !offer.Prepared {
				return
			}
			pause = o.pause(err)
		}
	})
}

// tellAsSuccessor tells the leaving holder, once, that no node sends connections to this pod, its
// successor. The argument "unready" reports whether the API server has stored that the pod is not
// Ready. The result is the instant of the next decision.
func (o *offerer) tellAsSuccessor(ctx context.Context, now time.Duration, unready bool) (wake time.Duration) {
	c := o.config
	switch {
	case !unready:
		o.unready = 0
		return pace.Never
	case o.unready == 0:
		o.unready = now
	}
	idle := time.Duration(math.MaxInt64)
	if c.Forwarder != nil {
		idle = c.Forwarder.Idle()
	}
	if at := leave.PreparedAt(o.unready, now-idle, c.EndpointDelay); now < at && !o.told {
		return at
	}
	o.tell(ctx)
	return pace.Never
}

// tell tells the holder, once for each leave, that this pod is prepared for the stop of the holder's
// application. A holder without [api.Awaits] in its announcement does not know such offers.
func (o *offerer) tell(ctx context.Context) {
	if o.told || !strings.HasSuffix(o.leave, api.Awaits) {
		return
	}
	o.told = true
	o.giveUp() // this write also contains the offer
	ctx, o.giveUp = context.WithCancel(ctx)
	o.write(ctx, api.Offer{Identity: o.self.Identity, Prepared: true}, 0)
}

// writeOffer adds the offer to the next Lease, unless the next Lease already has this offer, or enough
// offers of other pods. The result "enough" reports that the next Lease has enough offers of others.
func (s *state) writeOffer(ctx context.Context, leave string, offer api.Offer) (enough bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.self.Budget.RequestTimeout)
	defer cancel()
	c := s.config
	for range mostTries {
		var base *kube.Lease
		if base, err = c.API.GetLease(ctx, api.NextLease(c.Slots[0])); err != nil {
			return false, err
		}
		l, more := offerOn(base, leave, offer, c.Wall())
		if !more {
			return !api.ParseOffers(base.Annotations[api.OffersAnnotation]).Of(offer.Identity), nil
		}
		if _, err = c.API.UpdateLease(ctx, l); !errors.Is(err, kube.ErrConflict) {
			return false, err
		}
	}
	return false, err
}

// offerOn returns the next Lease with one more offer to the leave. An offer replaces an earlier offer
// of the same pod. The result "more" is false if the next Lease already has the offer, or enough
// offers of other pods. An ask names its pod as the holder of the next Lease. An agent may write only
// its own identity as the holder, so the offer replaces the ask. The pod whose ask was replaced writes
// its ask again.
func offerOn(base *kube.Lease, leave string, offer api.Offer, wall time.Time) (l *kube.Lease, more bool) {
	offers := api.ParseOffers(base.Annotations[api.OffersAnnotation])
	if offers.Leave != leave {
		offers = api.Offers{Leave: leave}
	}
	own := slices.IndexFunc(offers.Pods, func(o api.Offer) bool { return o.Identity == offer.Identity })
	switch {
	case own >= 0 && (offers.Pods[own] == offer || !offer.Prepared), own < 0 && len(offers.Pods) >= api.MostOffers:
		return nil, false
	case own >= 0:
		offers.Pods[own] = offer
	default:
		offers.Pods = append(offers.Pods, offer)
	}
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
