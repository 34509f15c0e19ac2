// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package courier carries the actions of a claim to the API server, and the answers back to
// the claim. A loop owns the claim: the courier starts each request in a goroutine of its
// own, and posts the answer to the loop.
//
// Guarantee: a write replaces exactly the object that the claim read, and keeps every field that the
// claim does not know, except managedFields. No goroutine of the courier touches the claim.
//
// The agent's first write clears the Lease's managedFields, which are half of its bytes in each
// renewal and each event. Rejected: clearing them in enroll, which would need a second write for
// each Lease.
package courier

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/claim"
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

// Config has the settings of a courier. Each field but Prompt must be set.
type Config struct {
	Leases Leases
	Claim  *claim.Claim
	// Timeout bounds each request except a watch.
	Timeout time.Duration
	// Post passes a function to the loop, or drops the function if ctx ends first. The loop calls
	// the function with the instant at which the loop received it.
	Post func(ctx context.Context, f func(now time.Duration))
	// Prompt reports that the pod needs each event at once. A pod that forwards connections needs the
	// address of the next holder.
	Prompt bool
	// Group counts the goroutines of the courier.
	Group *sync.WaitGroup
	// Answered is called on the loop for each answer, except the answers to a look. The argument
	// "err" is the API server's error. The argument "refusal" is the result of
	// [claim.Claim.Answered].
	Answered func(a claim.Action, err, refusal error)
	Log      *slog.Logger
}

// WatchEndsAfter is the time from the end of a look until the courier ends the watch of that look.
// A claim ends looks when the pod acquires or releases a slot. The API server does work for each
// watch that ends, and this work would delay the handover.
const WatchEndsAfter = 200 * time.Millisecond

// EventsWait is the time for which events wait while another pod is to hold next. In a handover of a
// hundred pods all agents would otherwise decide at once, just when the next holder needs the
// processors. After a release, only the successor may acquire the slot for longer than EventsWait.
const EventsWait = 200 * time.Millisecond

// Courier sends the requests of one claim. Only the loop that runs the functions of the field
// Post calls a Courier's methods.
type Courier struct {
	Config
	// leases has, for each slot, the Lease that the claim's next write replaces. A
	// write keeps the fields that the claim does not know.
	leases map[string]*kube.Lease
	// looks has, for each slot, the function that ends the present look.
	looks map[string]context.CancelFunc
}

// New returns a courier that has sent no request yet.
func New(c Config) *Courier {
	return &Courier{Config: c, leases: map[string]*kube.Lease{}, looks: map[string]context.CancelFunc{}}
}

// Execute does what an action demands: Execute sends the action's request, ends a look, or logs that the
// campaign gives its slots back.
func (c *Courier) Execute(ctx context.Context, a claim.Action) {
	switch a.Kind {
	case claim.Look:
		c.look(ctx, a)
	case claim.EndLook:
		time.AfterFunc(WatchEndsAfter, c.looks[a.Slot])
	case claim.StandBack:
		c.Log.Info("giving slots back", "missing", a.Slot, "hold", a.Hold)
	case claim.Read:
		c.send(ctx, a, func(ctx context.Context) (*kube.Lease, error) { return c.Leases.GetLease(ctx, a.Slot) }, nil)
	case claim.Acquire, claim.Renew, claim.Release:
		c.Write(ctx, a, nil)
	}
}

// Write sends a write. Once the API server has stored the write, the loop calls the function in
// the argument "stored", unless that argument is nil.
func (c *Courier) Write(ctx context.Context, a claim.Action, stored func()) {
	l := LeaseOf(c.leases[a.Slot], a.Record)
	c.send(ctx, a, func(ctx context.Context) (*kube.Lease, error) { return c.Leases.UpdateLease(ctx, l) }, stored)
}

// send sends a request, and passes its answer to the claim. After an answer without an error, the
// loop calls the function in the argument "done", unless that argument is nil.
func (c *Courier) send(ctx context.Context, a claim.Action, request func(context.Context) (*kube.Lease, error), done func()) {
	c.Group.Go(func() {
		bounded, cancel := context.WithTimeout(ctx, c.Timeout)
		defer cancel()
		l, err := request(bounded)
		c.Post(ctx, func(now time.Duration) {
			refusal := c.Claim.Answered(now, a, answerOf(l, err))
			c.keep(a.Slot, l)
			c.Answered(a, err, refusal)
			if err == nil && done != nil {
				done()
			}
		})
	})
}

// keep stores the Lease for the slot's next write, if the claim is going to replace this
// version of the Lease.
func (c *Courier) keep(slot string, l *kube.Lease) {
	if l == nil {
		return
	}
	if r := c.Claim.Record(slot); r.UID == l.UID && r.Version == l.ResourceVersion {
		c.leases[slot] = l
	}
}

// look reads the Lease, and then watches the Lease until the watch ends. If a.From has a
// version, look skips the read, and the watch continues from that version.
func (c *Courier) look(ctx context.Context, a claim.Action) {
	ctx, cancel := context.WithCancel(ctx)
	c.looks[a.Slot] = cancel
	c.Group.Go(func() {
		version, err := a.From, error(nil)
		if version == "" {
			version, err = c.read(ctx, a)
		}
		watch := func(from string) error {
			var p patience
			return c.Leases.WatchLease(ctx, a.Slot, from, func(e kube.WatchEvent) {
				if !p.wait(ctx) {
					return
				}
				version = e.ResourceVersion
				var r lease.Record
				if e.Lease != nil {
					r = RecordOf(e.Lease)
					p.patient = !c.Prompt && c.Claim.OtherIsNext(r)
				}
				c.Post(ctx, func(now time.Duration) { c.watched(now, a, e, r) })
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
			c.Post(ctx, func(now time.Duration) { a.WatchSent(now) })
			err = watch("")
		}
		c.Post(ctx, func(now time.Duration) {
			cancel()
			a.LookEnded(now, version, answerOf(nil, err))
			if err != nil {
				c.Log.Debug("lease is out of sight", "lease", a.Slot, "err", err)
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
func (c *Courier) read(ctx context.Context, a claim.Action) (version string, err error) {
	bounded, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	l, err := c.Leases.GetLease(bounded, a.Slot)
	if err != nil {
		return "", err
	}
	c.Post(ctx, func(now time.Duration) {
		a.Read(now, RecordOf(l))
		c.keep(a.Slot, l)
	})
	return l.ResourceVersion, nil
}

// watched passes an event of a watch to the claim. The record is that of the event's Lease.
func (c *Courier) watched(now time.Duration, a claim.Action, e kube.WatchEvent, r lease.Record) {
	switch {
	case e.Lease == nil:
	case e.Type == kube.Deleted:
		c.Log.Warn("lease is gone", "lease", a.Slot)
		a.Gone(now)
	default:
		a.Watched(now, r)
		c.keep(a.Slot, e.Lease)
	}
}
