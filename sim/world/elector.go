// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// Elector is a process with client-go's leader election (0.30 or later) on the Lease of a slot. The
// process releases the Lease only after its work has ended.
type Elector struct {
	*apiserver.Client
	w       *World
	name    string
	slot    string
	working bool
	Paused  bool // the elector does not compete
}

// The durations are those that client-go's documentation recommends.
const (
	// ElectorLease is the lease duration of an [Elector].
	ElectorLease = 15 * time.Second
	electorRenew = 10 * time.Second
	electorRetry = 2 * time.Second
)

// NewElector starts an elector, which competes for the slot.
func (w *World) NewElector(name, slot string) *Elector {
	proc := w.NewProcess()
	e := &Elector{w: w, Client: w.newClient(proc, name, nil), name: name, slot: slot}
	w.Checks.electors = append(w.Checks.electors, e)
	w.Group.Go(e.run)
	return e
}

// run reads the Lease now and then, and tries to hold it.
func (e *Elector) run() {
	r := e.w.Source(e.name)
	var seen *kube.Lease
	var since, renewed time.Duration
	for {
		pause := electorRetry + engine.Between(r, 0, electorRetry/5)
		select {
		case <-time.After(pause):
		case <-e.Ctx.Done():
			return
		}
		e.w.Lock()
		paused, now := e.Paused, e.w.Now()
		if e.working && (paused || now-renewed > electorRenew) {
			e.w.Note(e.name, "stops working")
			e.working = false
		}
		e.w.Unlock()
		ctx, cancel := context.WithTimeout(e.Ctx, electorRetry)
		lease, err := e.GetLease(ctx, e.slot)
		if err == nil {
			if seen == nil || seen.ResourceVersion != lease.ResourceVersion {
				seen, since = lease, e.now()
			}
			if renewed, err = e.try(ctx, lease, since, paused, renewed); err == nil {
				seen = nil
			}
		}
		cancel()
	}
}

func (e *Elector) now() time.Duration {
	e.w.Lock()
	defer e.w.Unlock()
	return e.w.Now()
}

// try renews, acquires or releases as client-go does. Client-go compares identity and spec, and
// ignores annotations. The result is the instant at which the elector sent its last stored write.
func (e *Elector) try(ctx context.Context, lease *kube.Lease, since time.Duration, paused bool, renewed time.Duration) (time.Duration, error) {
	mine := lease.Holder == e.name
	expired := lease.Holder == "" || e.now()-since > time.Duration(lease.DurationSeconds)*time.Second
	if paused && !mine || !mine && !expired {
		return renewed, context.Canceled
	}
	next := lease.Clone()
	sent := e.now()
	next.RenewTime = time.Now()
	switch {
	case paused:
		next.Holder, next.DurationSeconds = "", 1
	case !mine:
		next.Holder, next.AcquireTime, next.DurationSeconds = e.name, time.Now(), int(ElectorLease/time.Second)
		next.Transitions++
	default:
		next.DurationSeconds = int(ElectorLease / time.Second)
	}
	if _, err := e.UpdateLease(ctx, next); err != nil {
		return renewed, err
	}
	e.w.Do(func() {
		if !paused && !e.working {
			e.begins()
		}
	})
	return sent, nil
}

// begins notes that the elector works, and checks that no child runs under the slot.
func (e *Elector) begins() {
	e.w.Note(e.name, "works under %s", e.slot)
	e.working = true
	if c := e.w.Checks.Holder(e.slot); c != nil && !e.w.Checks.absent(c, e.slot) {
		e.w.Violate(twoAtOnce, "%s works while %s of %s lives", e.name, c.Name, c.where)
	}
}
