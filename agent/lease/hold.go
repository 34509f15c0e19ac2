// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"fmt"
	"slices"
	"time"
)

// Hold is one slot, held. It is made by the answer to an acquiring write and
// knows until when the child may live.
type Hold struct {
	self   Self
	id     string
	token  string
	record Record
	// from is when the last write that counts was sent.
	from time.Duration
	// pending are the writes that may yet turn out to have been stored, the
	// earliest first. All of them replace the version in record, so that at
	// most one of them can be.
	pending []pending
}

// pending is what is remembered of an attempt without an answer.
type pending struct {
	sent  time.Duration
	renew time.Time
}

// Attempt is one write of a hold.
type Attempt struct {
	// Sent is the instant before it left.
	Sent time.Duration
	// Record is what is written.
	Record Record
}

// Begin makes a hold of the answer to an acquiring write (or, for a hold that
// an earlier agent process began, of the first renewal by this one). The token
// is empty for a hold that begins: it is then the version of the answer.
func (s Self) Begin(acquiring Attempt, stored Record, token string) (*Hold, error) {
	switch {
	case stored.UID == acquiring.Record.UID && stored.Version == acquiring.Record.Version:
		return nil, fmt.Errorf("begin hold: %w", ErrNotStored)
	case !s.Holds(stored, acquiring.Record.Hold):
		return nil, fmt.Errorf("begin hold: %w", &LostError{Holder: stored.Holder})
	}
	if token == "" {
		token = stored.Version
	}
	return &Hold{self: s, id: stored.Hold, token: token, record: stored, from: acquiring.Sent}, nil
}

// Resume returns the write by which a new agent process goes on with a hold
// that shims of this pod report. It has no deadline of its own: when the last
// renewal was sent, nobody knows any more. [Self.Begin] makes one of the answer.
func (s Self) Resume(r Record, hold, token string, notes Notes, wall time.Time) (Record, error) {
	switch {
	case r.UID == "" || r.Version == "":
		return Record{}, fmt.Errorf("resume: %w", ErrNoUID)
	case !s.Holds(r, hold):
		return Record{}, fmt.Errorf("resume: %w", &LostError{Holder: r.Holder})
	}
	next := r
	next.RenewTime = different(r.RenewTime, wall)
	next.Duration = s.Budget.Duration
	next.Token = token
	next.Notes = notes
	return next, nil
}

// ID names the hold.
func (h *Hold) ID() string { return h.id }

// Token is the fencing token. It does not change while the hold lasts.
func (h *Hold) Token() string { return h.token }

// Record is the last state of the Lease that is known to be stored.
func (h *Hold) Record() Record { return h.record }

// Deadline is the instant at which every child must be dead.
func (h *Hold) Deadline() time.Duration { return h.from + h.self.Budget.Deadline() }

// DrainAt is the instant from which the children are drained, if no renewal
// counts until then.
func (h *Hold) DrainAt() time.Duration { return h.from + h.self.Budget.RenewDeadline }

// RenewAt is the instant at which the next renewal is due.
func (h *Hold) RenewAt() time.Duration { return h.from + h.self.Budget.Renew }

// ExpiresAt is the earliest instant at which somebody else may begin.
func (h *Hold) ExpiresAt() time.Duration { return h.from + h.self.Budget.Duration }

// Renew notes an attempt that is about to be sent at now, and returns it.
func (h *Hold) Renew(now time.Duration, wall time.Time, notes Notes) Attempt {
	next := h.record
	next.RenewTime = different(h.record.RenewTime, wall)
	next.Duration = h.self.Budget.Duration
	next.Token = h.token
	next.Notes = notes
	attempt := Attempt{Sent: now, Record: next}
	h.pending = append(h.pending, pending{sent: now, renew: next.RenewTime})
	return attempt
}

// Pending is how many attempts may yet turn out to have been stored.
func (h *Hold) Pending() int { return len(h.pending) }

// Answered takes the answer to an attempt. An attempt that is settled already
// changes nothing: an answer may come after the one to a later attempt.
func (h *Hold) Answered(attempt Attempt, stored Record) error {
	switch {
	case attempt.Record.Version != h.record.Version:
		return nil
	case stored.UID != h.record.UID || !h.self.Holds(stored, h.id):
		return fmt.Errorf("renew: %w", &LostError{Holder: stored.Holder})
	case stored.Version == h.record.Version:
		return fmt.Errorf("renew: %w", ErrNotStored)
	}
	h.settle(attempt.Sent, stored)
	return nil
}

// Read takes a consistent read, which a refused or unanswered attempt calls
// for. An error says that the slot is lost. Where a renewal of this hold turns
// out to have been stored it counts from the earliest that is unanswered.
// Somebody else's write, in which our renewal still stands, extends nothing.
func (h *Hold) Read(r Record) error {
	switch {
	case r.UID != h.record.UID || !h.self.Holds(r, h.id):
		return fmt.Errorf("read: %w", &LostError{Holder: r.Holder})
	case r.Version == h.record.Version:
		return nil
	case h.stored(r):
		h.settle(h.pending[0].sent, r)
	default:
		h.settle(h.from, r)
	}
	return nil
}

// stored reports whether what was read came from a pending attempt: their
// renew times all differ from the one they replace.
func (h *Hold) stored(r Record) bool {
	return slices.ContainsFunc(h.pending, func(p pending) bool { return p.renew.Equal(r.RenewTime) })
}

// settle makes stored the state that counts. What was sent against an older
// one can no longer be stored.
func (h *Hold) settle(from time.Duration, stored Record) {
	h.from, h.record, h.pending = from, stored, nil
}
