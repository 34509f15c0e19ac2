// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/lease"
)

// notes are what standbys are told.
func (a *Agent) notes(serving time.Time) lease.Notes {
	return lease.Notes{Address: a.config.PodIP, Workload: a.config.Workload, Serving: serving}
}

// renewAll renews every slot whose time has come, as long as there is a child,
// or a grant, to renew for.
func (a *Agent) renewAll(ctx context.Context, h *hold) {
	if !a.shims.Supported(h.id) && !a.unanswered(h) {
		return
	}
	serves := a.serves(h)
	switch {
	case !serves && h.drains != 0 && a.now < h.drains+quick:
		// A child that stops at once is no news of its own, and a write under
		// way would only hold up the release.
		a.wakeAt(h.drains + quick)
	case !serves:
		h.serving = time.Time{}
	case h.serving.IsZero():
		h.serving = a.config.Wall()
		if acquired := a.slots[0].held.Record().AcquireTime; h.serving.Before(acquired) {
			h.serving = acquired // a wall clock that was set back
		}
	}
	for _, s := range a.slots {
		a.renew(ctx, s, a.notes(h.serving))
	}
}

// crowd bounds how many attempts are under way for one slot. They start at most
// a retry apart, also while earlier ones hang; with leases of up to 90 s a
// request times out before the bound matters.
const crowd = 8

// renew sends the renewal of one slot if it is due: a sixth of the duration
// after the last, or at once where standbys are to be told something new.
func (a *Agent) renew(ctx context.Context, s *slot, notes lease.Notes) {
	if s.lost != nil {
		return
	}
	due := s.held.RenewAt()
	if s.unread || s.assured < a.leaps || !sameNotes(s.held.Record().Notes, notes) {
		due = a.now
	}
	if due = max(due, s.tryAt, s.pace.nextAt()); a.now < due {
		a.wakeAt(due)
		return
	}
	if s.flights >= crowd {
		return
	}
	s.tryAt = a.now + a.jitter(a.self.Budget.Retry)
	a.wakeAt(s.tryAt)
	if s.unread {
		a.reread(ctx, s)
		return
	}
	held, leaps := s.held, a.leaps
	attempt := held.Renew(a.now, a.config.Wall(), notes)
	a.put(ctx, s, attempt.Record, func(l *kube.Lease, err error) {
		a.renewed(s, held, attempt, l, err)
		a.assure(s, held, leaps, l, err)
	})
}

func sameNotes(a, b lease.Notes) bool {
	return a.Address == b.Address && a.Workload == b.Workload && a.Serving.Equal(b.Serving)
}

// renewed takes the answer to a renewal, which may come late.
func (a *Agent) renewed(s *slot, held *lease.Hold, attempt lease.Attempt, l *kube.Lease, err error) {
	a.metrics.renewed(err)
	if s.held != held {
		a.overtaken(s, l, err)
		return
	}
	if err == nil {
		err = a.settle(s, l, func(r lease.Record) error { return held.Answered(attempt, r) })
	}
	switch {
	case err == nil:
	case attempt.Record.Version != held.Record().Version:
		// An attempt beside this one has settled it.
	case errors.Is(err, kube.ErrConflict), errors.Is(err, kube.ErrNotFound):
		// What stands there, only a read can say; at once, for it may be ours.
		s.unread, s.tryAt = true, a.now
		fallthrough
	default:
		a.config.Log.Warn("not renewed", "lease", s.name, "hold", held.ID(), "err", err)
	}
}

// overtaken takes the answer to a renewal of a hold that has ended since. What
// was stored is what a release has to replace.
func (a *Agent) overtaken(s *slot, l *kube.Lease, err error) {
	if err == nil && s.held == nil {
		s.base = l
		s.view.Watched(a.now, recordOf(l))
	}
}

// reread reads what a refused write met. Where that is something new, and still
// ours, the next write is sent at once.
func (a *Agent) reread(ctx context.Context, s *slot) {
	held, version := s.held, s.held.Record().Version
	a.get(ctx, s, func(l *kube.Lease, err error) {
		switch {
		case s.held != held || version != held.Record().Version:
			// Settled in the meantime.
		case err != nil:
			a.config.Log.Warn("not read", "lease", s.name, "hold", held.ID(), "err", err)
		default:
			s.unread = false
			if a.settle(s, l, held.Read) == nil && l.ResourceVersion != version {
				s.tryAt = a.now
			}
		}
	})
}

// settle hands an answer to the hold. Where that says that the slot is lost, it
// is; nothing later can bring it back.
func (a *Agent) settle(s *slot, l *kube.Lease, take func(lease.Record) error) error {
	r := recordOf(l)
	err := take(r)
	switch {
	case errors.Is(err, lease.ErrLost):
		s.lost, s.base = err, l
		s.view.Read(a.now, r)
	case err == nil && s.held.Record().Version == r.Version:
		s.base = l
		s.unread = false
		s.view.Read(a.now, r)
	}
	return err
}
