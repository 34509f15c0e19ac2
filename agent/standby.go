// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/agent/proof"
)

// bid is a hold in the making. Its number stays the same until all slots are
// held: nothing is granted under it before.
type bid struct {
	id string
	// resume: an earlier agent process began it and a child of it runs.
	resume bool
	// tokens are those of a resumed hold, by slot.
	tokens map[string]string
	// since is when it began, or acquired a slot last.
	since time.Duration
}

// standby waits for the slots and takes them, one after the other. It returns
// nil without an error when a stopping agent has nothing left to do.
func (a *Agent) standby(ctx context.Context) (*hold, error) {
	for {
		a.drainOrphans()
		switch {
		case a.resumable():
			a.owes = false
			if a.take(ctx) {
				return a.begin(), nil
			}
		case a.contends():
			a.freshBid()
			if a.take(ctx) {
				return a.begin(), nil
			}
		default:
			a.giveBack(ctx, 0)
		}
		if a.finished() {
			return nil, nil
		}
		a.lookAll(ctx)
		a.showStandby(ctx)
		if err := a.wait(ctx); err != nil {
			return nil, err
		}
	}
}

// lookAll keeps every slot in sight that is not held. While a write is under
// way its answer is the better news.
func (a *Agent) lookAll(ctx context.Context) {
	for _, s := range a.slots {
		switch {
		case s.held != nil:
			// Its watch goes on.
		case s.cancel != nil || s.flights > 0:
		case a.now < max(s.lookAt, s.pace.spareAt()):
			a.wakeAt(max(s.lookAt, s.pace.spareAt()))
		default:
			a.look(ctx, s)
		}
	}
}

// contends reports whether this pod competes for its slots: only while it is to
// stay, a shim waits, no child of an earlier hold is left, and no slot is seen in
// another pod's hands. A release that is owed comes first.
func (a *Agent) contends() bool {
	if a.stopping || a.leaving || len(a.shims.Waiting()) == 0 || a.shims.Alive() {
		return false
	}
	if a.owes && a.mineProven() {
		return false
	}
	a.owes = false
	if a.aside > 0 {
		// It is released just now.
		a.contendAt, a.aside = a.now+a.aside, 0
	}
	if a.now < a.contendAt {
		a.wakeAt(a.contendAt)
		return false
	}
	return a.mayBid()
}

// freshBid gives the bid a number of its own.
func (a *Agent) freshBid() {
	if a.bid.id != "" && !a.bid.resume {
		return
	}
	a.shims.Forget(a.named)
	a.bid = bid{id: fmt.Sprintf("%016x", a.random.Uint64()), since: a.now}
	a.shims.Begin(a.bid.id)
}

// named reports whether a Lease, as far as is seen or under way, is of the hold.
func (a *Agent) named(hold string) bool {
	return slices.ContainsFunc(a.slots, func(s *slot) bool {
		r, _ := s.view.Record()
		return s.flights > 0 || r.Hold == hold || s.held != nil && s.held.ID() == hold
	})
}

// resumable makes the bid that of a child which an earlier agent process
// granted, if every Lease is of that very hold still.
func (a *Agent) resumable() bool {
	for _, k := range a.shims.Reports() {
		id := k.Hold
		if !k.Connected || !proof.HasChild(k) || a.orders.to(k.Shim).drained == id || a.shims.Doubted(id) {
			continue
		}
		tokens := map[string]string{}
		for _, t := range k.Slots {
			tokens[t.Slot] = t.Token
		}
		if a.holdsAll(id, tokens) {
			a.bid = bid{id: id, resume: true, tokens: tokens}
			return true
		}
	}
	return false
}

// holdsAll reports whether every slot is seen to be of the hold. A token that
// the child does not know is taken from the Lease.
func (a *Agent) holdsAll(id string, tokens map[string]string) bool {
	for _, s := range a.slots {
		r, ok := s.view.Record()
		if !ok || !a.self.Holds(r, id) {
			return false
		}
		if tokens[s.name] == "" {
			tokens[s.name] = r.Token
		}
		if tokens[s.name] == "" {
			return false
		}
	}
	return true
}

// drainOrphans drains the children whose hold is over: a Lease was seen that is
// not of it, or nobody can vouch for an earlier shim of it. Nothing seen, nothing
// done: their own deadline is on its way.
func (a *Agent) drainOrphans() {
	for _, k := range a.shims.Reports() {
		if !proof.HasChild(k) {
			continue
		}
		reason, taken := "", false
		if a.shims.Doubted(k.Hold) {
			reason = reasonUnproven
		}
		for _, s := range a.slots {
			r, ok := s.view.Record()
			if ok && !a.self.Holds(r, k.Hold) {
				reason, taken = reasonLost, taken || !a.self.Mine(r)
			}
		}
		switch {
		case taken:
			a.orders.kill(k, reason)
		case reason != "" && k.Phase == gate.Running:
			a.orders.drain(k, k.Hold, reason, a.self.Budget.Drain)
		}
	}
}

// proven reports whether the Lease is this pod's own and nothing of its hold
// can be alive: it may be taken back at once, or released.
func (a *Agent) proven(r lease.Record) bool {
	rebooted := a.self.Rebooted(r) && !a.config.OwnKernel
	return a.self.Mine(r) && (rebooted || a.shims.Proven(r.Hold))
}

// mineProven reports whether any slot is this pod's own, for nothing.
func (a *Agent) mineProven() bool {
	for _, s := range a.slots {
		if r, ok := s.view.Record(); ok && a.proven(r) {
			return true
		}
	}
	return false
}

// take goes on with acquiring; true when every slot is held. Nothing that comes
// later in the order is acquired, or kept, before what comes earlier.
func (a *Agent) take(ctx context.Context) bool {
	for i, s := range a.slots {
		if s.held != nil {
			if s.lost != nil || s.held.ID() != a.bid.id || a.now >= s.held.DrainAt() {
				a.abandon()
				return false
			}
			a.wakeAt(s.held.DrainAt())
			a.renew(ctx, s, s.held.Record().Notes)
			continue
		}
		if until, ends := a.patientUntil(); i > 0 && ends {
			if a.now >= until {
				a.standBack(s)
				return false
			}
			a.wakeAt(until)
		}
		if !a.takeOne(ctx, s) {
			a.giveBack(ctx, i+1)
		}
		return false
	}
	return true
}

// takeOne sends the acquiring write of one slot when its time has come; false
// if the slot is not free.
func (a *Agent) takeOne(ctx context.Context, s *slot) bool {
	r, ok := s.view.Record()
	if !ok || s.view.IsBlind() || s.flights > 0 {
		// An answer is on its way.
		return true
	}
	if !a.bid.resume && !a.proven(r) {
		if at, _ := s.view.FreeAt(a.self.Budget.Duration); a.now < at {
			a.wakeAt(at)
			return false
		}
	}
	tryAt := s.pace.nextAt()
	if s.refused == r.Version {
		tryAt = max(tryAt, s.tryAt)
	}
	if a.now < tryAt {
		a.wakeAt(tryAt)
		return true
	}
	if s.refused == r.Version {
		// What was refused as old is still all there is to see: the watch is
		// late or silent.
		s.refused = ""
		s.unlook()
		s.view.Blind()
		a.wakeAt(a.now)
		return true
	}
	a.acquire(ctx, s, r)
	return true
}

// acquire sends the write that begins, or resumes, the hold of one slot.
func (a *Agent) acquire(ctx context.Context, s *slot, r lease.Record) {
	by := a.bid
	wall, notes := a.config.Wall(), a.notes(time.Time{})
	var next lease.Record
	var err error
	if by.resume {
		notes.Serving = r.Notes.Serving
		next, err = a.self.Resume(r, by.id, by.tokens[s.name], notes, wall)
	} else {
		next, err = a.self.Acquire(r, by.id, notes, wall)
	}
	if err != nil {
		a.config.Log.Error("no acquiring write", "lease", s.name, "err", err)
		return
	}
	attempt, leaps := lease.Attempt{Sent: a.now, Record: next}, a.leaps
	a.put(ctx, s, next, func(l *kube.Lease, err error) {
		s.assured = leaps // of the hold that this may begin
		a.acquired(s, by, attempt, l, err)
	})
}

// acquired takes the answer to an acquiring write. One that was lost needs no
// care beyond reading again: nothing is granted yet, so if the Lease turns out
// to be ours under this bid, that is proof that nothing of it is alive.
func (a *Agent) acquired(s *slot, by bid, attempt lease.Attempt, l *kube.Lease, err error) {
	a.metrics.wrote(err)
	if err == nil {
		var held *lease.Hold
		if held, err = a.self.Begin(attempt, recordOf(l), by.tokens[s.name]); err == nil {
			s.base, s.held = l, held
			s.lost, s.unread, s.refused, s.tryAt, s.misses = nil, false, "", 0, 0
			s.view.Read(a.now, held.Record())
			if a.bid.id == by.id {
				a.bid.since = a.now
			}
			return
		}
	}
	a.missed(s, attempt.Record.Version, err)
}

// missed takes the failure of a standby's write. A conflict means that somebody
// was faster, and the watch is about to say who. After anything else nobody
// knows what was stored, nor how long nothing could have been seen.
func (a *Agent) missed(s *slot, version string, err error) {
	a.config.Log.Debug("write was not stored", "lease", s.name, "err", err)
	if errors.Is(err, kube.ErrConflict) {
		s.refused, s.tryAt = version, a.now+max(a.jitter(a.self.Budget.Retry), a.backoff(s, err))
		return
	}
	a.lookAgain(s, err)
}

// abandon gives up what was acquired so far: nothing was granted, so all of it
// is released, or taken again from the first.
func (a *Agent) abandon() {
	for _, s := range a.slots {
		a.drop(s)
	}
	a.bid = bid{}
	a.wakeAt(a.now)
}

// drop turns what is known of a held slot into what a standby knows of it. It
// has no watch yet, so nothing is free before it was read again.
func (a *Agent) drop(s *slot) {
	if s.held == nil {
		return
	}
	s.view.Read(a.now, s.held.Record())
	s.view.Blind()
	s.held, s.lost, s.unread, s.refused, s.tryAt = nil, nil, false, "", 0
	s.unlook()
}

// giveBack releases the slots from the index on that are this pod's own though
// nothing of their hold is alive.
func (a *Agent) giveBack(ctx context.Context, from int) {
	for _, s := range a.slots[from:] {
		a.drop(s)
		r, ok := s.view.Record()
		switch {
		case !ok || s.flights > 0 || !a.proven(r):
		case s.refused == r.Version && a.now < s.tryAt, a.now < s.lookAt, a.now < s.pace.nextAt():
			a.wakeAt(max(s.tryAt, s.lookAt, s.pace.nextAt()))
		default:
			s.refused = ""
			a.release(ctx, s, r)
		}
	}
}

// release sends the write that frees the slot. The caller has proof.
func (a *Agent) release(ctx context.Context, s *slot, r lease.Record) {
	next, err := a.self.Release(r, a.config.Wall())
	if err != nil {
		a.config.Log.Error("no releasing write", "lease", s.name, "err", err)
		return
	}
	a.put(ctx, s, next, func(l *kube.Lease, err error) {
		a.metrics.wrote(err)
		if err != nil {
			a.missed(s, r.Version, err)
			return
		}
		a.config.Log.Info("released", "lease", s.name, "hold", r.Hold)
		a.events.released(s.name)
		s.base, s.misses = l, 0
		s.view.Read(a.now, recordOf(l))
		// Who takes it now should not have to share the API server's, or the
		// machine's, attention with our next look.
		s.lookAt = a.now + quick
	})
}

// finished reports whether a stopping agent may leave: no child is left, and
// every slot that could be released is, or has expired by now.
func (a *Agent) finished() bool {
	if !a.stopping || a.shims.Alive() {
		return false
	}
	if a.now >= a.leaveBy {
		return true
	}
	a.wakeAt(a.leaveBy)
	for _, s := range a.slots {
		if s.flights > 0 {
			return false
		}
	}
	return !a.mineProven()
}
