// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package elector

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/lease"
)

// Leases has the requests about Leases. agent/kube implements Leases.
type Leases interface {
	// GetLease reads a Lease consistently.
	GetLease(ctx context.Context, name string) (*kube.Lease, error)
	// UpdateLease replaces the Lease only in the state that the agent has read.
	UpdateLease(ctx context.Context, lease *kube.Lease) (*kube.Lease, error)
	// WatchLease calls fn with each event until the watch ends. WatchLease returns nil if
	// the watch ends without an error.
	WatchLease(ctx context.Context, name, resourceVersion string, fn func(kube.WatchEvent)) error
}

// Config has the settings of an Elector. Prompt, Sends and Answered may be left out.
type Config struct {
	Claim  Claim
	Leases Leases
	// Post passes a function to the loop, or drops the function if ctx ends first. The loop calls
	// the function with the instant at which the loop received it.
	Post func(ctx context.Context, f func(now time.Duration))
	// Prompt reports that the pod needs each event at once. A pod that forwards connections needs the
	// address of the next holder.
	Prompt bool
	// Group counts the goroutines of the Elector.
	Group *sync.WaitGroup
	// Sends is called on the loop before each acquiring or releasing write, and may change the
	// rollout that the write stores.
	Sends func(ctx context.Context, now time.Duration, a *Action)
	// Answered is called on the loop for each answer, except the answers to a look. The argument
	// "err" is the API server's error. The argument "refusal" is that error, or the reason why the
	// answer does not count.
	Answered func(a Action, err, refusal error)
	Log      *slog.Logger
}

// WatchEndsAfter is the time from the end of a look until the Elector ends the watch of that look.
// A claim ends looks when the pod acquires or releases a slot. The API server does work for each
// watch that ends, and this work would delay the handover.
const WatchEndsAfter = 200 * time.Millisecond

// EventsWait is the time for which events wait while another pod is to hold next. In a handover of a
// hundred pods all agents would otherwise decide at once, just when the next holder needs the
// processors. After a release, only the successor may acquire the slot for longer than EventsWait.
const EventsWait = 200 * time.Millisecond

// Elector keeps one claim. Only the loop that runs the functions of the field Post calls its methods.
type Elector struct {
	*claim
	config Config
	// leases has, for each slot, the Lease that the claim's next write replaces. A
	// write keeps the fields that the claim does not know.
	leases map[string]*kube.Lease
	// looks has, for each slot, the function that ends the present look.
	looks map[string]context.CancelFunc
	own   map[string]*Own
}

// Own is a hold that this process began or resumed. If a late write stores a hold that is already
// forgotten, that hold counts as one of an earlier process.
type Own struct {
	// Resumed reports that an earlier process of the pod began the hold.
	Resumed bool
	// Live reports that somebody may be at work under the hold. Only the caller sets Live.
	Live bool
}

// New returns an Elector that has sent no request yet.
func New(c Config, now time.Duration) *Elector {
	return &Elector{
		claim: newClaim(c.Claim, now), config: c,
		leases: map[string]*kube.Lease{}, looks: map[string]context.CancelFunc{}, own: map[string]*Own{},
	}
}

// Step lets the claim decide by the facts, and sends the requests that the claim then demands. The
// function "outcome" fills in the outcomes of the holds that Leases name. The caller calls Step again at
// the instant wake, or after an earlier event.
func (e *Elector) Step(ctx context.Context, now time.Duration, f Facts, outcome func(hold string) Outcome) (state State, wake time.Duration) {
	f.Outcomes = map[string]Outcome{}
	for _, hold := range e.Holds() {
		f.Outcomes[hold] = outcome(hold)
	}
	actions, wake := e.next(now, f)
	for _, a := range actions {
		e.execute(ctx, now, a)
	}
	if state = e.State(); state.Stage == Held {
		e.addOwn(state.Hold, state.Resumed)
	}
	return state, wake
}

// Own returns the hold with the number, if this process began or resumed it, and a Lease may name it or
// no later hold has begun; otherwise nil. The present hold is always such a hold.
func (e *Elector) Own(hold string) *Own { return e.own[hold] }

// Began reports whether this process itself began the hold, so that no other process can have given a
// grant of it. A hold without slots excludes no other pod, so it counts as begun.
func (e *Elector) Began(hold string) bool {
	own := e.own[hold]
	return hold == Slotless || own != nil && !own.Resumed
}

// Owns reports whether a Lease may name a hold of this process.
func (e *Elector) Owns() bool { return slices.ContainsFunc(slices.Collect(maps.Keys(e.own)), e.Named) }

// addOwn remembers a hold, and forgets the earlier holds that no Lease names.
func (e *Elector) addOwn(hold string, resumed bool) {
	if e.own[hold] == nil {
		maps.DeleteFunc(e.own, func(hold string, _ *Own) bool { return !e.Named(hold) })
		e.own[hold] = &Own{Resumed: resumed}
	}
}

func (e *Elector) execute(ctx context.Context, now time.Duration, a Action) {
	switch a.Kind {
	case Look:
		e.look(ctx, a)
	case EndLook:
		time.AfterFunc(WatchEndsAfter, e.looks[a.Slot])
	case StandBack:
		e.config.Log.Info("giving slots back", "missing", a.Slot, "hold", a.Hold)
	case Read:
		e.send(ctx, a, func(ctx context.Context) (*kube.Lease, error) { return e.config.Leases.GetLease(ctx, a.Slot) })
	case Acquire, Renew, Release:
		if a.Kind == Acquire {
			e.addOwn(a.Record.Hold, a.Resumed)
		}
		if a.Kind != Renew && e.config.Sends != nil {
			e.config.Sends(ctx, now, &a)
		}
		l := LeaseOf(e.leases[a.Slot], a.Record)
		e.send(ctx, a, func(ctx context.Context) (*kube.Lease, error) { return e.config.Leases.UpdateLease(ctx, l) })
	}
}

// send sends a request, and passes its answer to the claim.
func (e *Elector) send(ctx context.Context, a Action, request func(context.Context) (*kube.Lease, error)) {
	e.config.Group.Go(func() {
		bounded, cancel := context.WithTimeout(ctx, e.timeout())
		defer cancel()
		l, err := request(bounded)
		e.config.Post(ctx, func(now time.Duration) {
			refusal := e.claim.answered(now, a, answerOf(l, err))
			e.remember(a.Slot, l)
			if e.config.Answered != nil {
				e.config.Answered(a, err, refusal)
			}
		})
	})
}

// timeout bounds each request except a watch.
func (e *Elector) timeout() time.Duration { return e.config.Claim.Self.Budget.RequestTimeout }

// remember stores the Lease for the slot's next write, if the claim is going to replace this
// version of the Lease.
func (e *Elector) remember(slot string, l *kube.Lease) {
	if l == nil {
		return
	}
	if r := e.Record(slot); r.UID == l.UID && r.Version == l.ResourceVersion {
		e.leases[slot] = l
	}
}

// look reads the Lease, and then watches the Lease until the watch ends. If a.From has a
// version, look skips the read, and the watch continues from that version.
func (e *Elector) look(ctx context.Context, a Action) {
	ctx, cancel := context.WithCancel(ctx)
	e.looks[a.Slot] = cancel
	e.config.Group.Go(func() {
		version, err := a.From, error(nil)
		if version == "" {
			version, err = e.read(ctx, a)
		}
		watch := func(from string) error {
			var p patience
			return e.config.Leases.WatchLease(ctx, a.Slot, from, func(event kube.WatchEvent) {
				if !p.wait(ctx) {
					return
				}
				version = event.ResourceVersion
				var r lease.Record
				if event.Lease != nil {
					r = RecordOf(event.Lease)
					p.patient = !e.config.Prompt && e.OtherIsNext(r)
				}
				e.config.Post(ctx, func(now time.Duration) { e.watched(now, a, event, r) })
			})
		}
		read := err == nil
		if read {
			err = watch(version)
		}
		if errors.Is(err, kube.ErrGone) && read && a.From == "" {
			// The server has forgotten the version, because the Lease was written long ago. A
			// watch without a version begins with the present Lease. Only the answer to a watch
			// says so: after the same answer to the read, the claim must read again.
			e.config.Post(ctx, func(now time.Duration) { a.WatchSent(now) })
			err = watch("")
		}
		e.config.Post(ctx, func(now time.Duration) {
			cancel()
			a.LookEnded(now, version, answerOf(nil, err))
			if err != nil {
				e.config.Log.Debug("lease is out of sight", "lease", a.Slot, "err", err)
			}
		})
	})
}

// patience lets the events of a watch wait.
type patience struct {
	// patient reports that the next event may wait.
	patient bool
	// passing is the instant until which events pass. After a wait, all events of the time of that wait
	// follow at once. So however many events come, each event waits for [EventsWait] at most.
	passing time.Time
}

// wait lets an event wait, and reports whether ctx lasts.
func (p *patience) wait(ctx context.Context) bool {
	if p.patient && !time.Now().Before(p.passing) {
		select {
		case <-time.After(EventsWait):
		case <-ctx.Done():
		}
		p.passing = time.Now().Add(EventsWait)
	}
	return ctx.Err() == nil
}

// read reads the Lease, and returns the version from which a watch can continue.
func (e *Elector) read(ctx context.Context, a Action) (version string, err error) {
	bounded, cancel := context.WithTimeout(ctx, e.timeout())
	defer cancel()
	l, err := e.config.Leases.GetLease(bounded, a.Slot)
	if err != nil {
		return "", err
	}
	e.config.Post(ctx, func(now time.Duration) {
		a.Read(now, RecordOf(l))
		e.remember(a.Slot, l)
	})
	return l.ResourceVersion, nil
}

// watched passes an event of a watch to the claim. The record is that of the event's Lease.
func (e *Elector) watched(now time.Duration, a Action, event kube.WatchEvent, r lease.Record) {
	switch {
	case event.Lease == nil:
	case event.Type == kube.Deleted:
		e.config.Log.Warn("lease is gone", "lease", a.Slot)
		a.Gone(now)
	default:
		a.Watched(now, r)
		e.remember(a.Slot, event.Lease)
	}
}
