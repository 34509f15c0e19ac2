// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"fmt"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// Hold is one uninterrupted possession of one slot. A Hold begins with the answer to an
// acquiring write, and computes the child's deadline.
type Hold struct {
	self   Self
	id     string
	token  string
	record Record
	// profile is that of the hold's last stored write.
	profile Profile
	// acquired is the acquire time that each write of the hold has.
	acquired time.Time
	// The field "from" is the instant from which the deadline counts.
	from time.Duration
	// pending are the unanswered attempts, the earliest first. All of them replace the version in
	// the field "record", so the API server can store at most one of them.
	pending []pending
	// promises has, for each supporter, the instant until which it takes nothing. The field "settled" is the
	// instant until which the list stays, because the API server has refused its change, and refusals the number of
	// such refusals of the hold's first list.
	promises map[string]time.Duration
	settled  time.Duration
	refusals int
}

// pending is an attempt that the API server has not answered yet.
type pending struct {
	sent    time.Duration
	renew   time.Time
	profile Profile
	// The duration in the Lease, and the list, are those of the attempt.
	duration   time.Duration
	supporters api.Supporters
}

// Attempt is one write of a hold.
type Attempt struct {
	// Sent is the instant just before the write was sent.
	Sent time.Duration
	// Record is the content of the write.
	Record Record
}

// shortened reports whether a write with the given duration was stored with a shorter one. A Lease has whole
// seconds.
func shortened(written time.Duration, stored Record) bool {
	return stored.Duration < written.Truncate(time.Second)
}

// Begin starts a hold, from the answer to the write that acquired the slot, or from a consistent read
// that shows this write. To resume the hold of an earlier agent process, Begin takes the answer to this
// process's first renewal, and the token of the hold. For a new hold the argument "token" is empty, and
// the version of the answer or of the read becomes the token. If nothing was stored, or the Lease has
// another hold or a shorter duration, Begin returns an error.
func (s Self) Begin(acquiring Attempt, stored Record, token string) (*Hold, error) {
	switch {
	case stored.UID == acquiring.Record.UID && stored.Version == acquiring.Record.Version:
		return nil, fmt.Errorf("begin hold: %w", ErrNotStored)
	case !s.Holds(stored, acquiring.Record.Hold):
		return nil, fmt.Errorf("begin hold: %w", &LostError{Holder: stored.Holder})
	case shortened(acquiring.Record.Duration, stored):
		return nil, fmt.Errorf("begin hold: %w", ErrShortened)
	}
	if token == "" {
		token = stored.Version
	}
	return &Hold{
		self: s, id: stored.Hold, token: token, record: stored, from: acquiring.Sent,
		profile: acquiring.Record.Profile, acquired: acquiring.Record.AcquireTime,
	}, nil
}

// Resume returns the write by which a new agent process continues a hold that shims of this pod
// report. The write alone gives no deadline, because the new process does not know when the
// last renewal was sent. [Self.Begin] computes a deadline from the answer. If the Lease no longer
// has the hold, the error is a [*LostError].
func (s Self) Resume(r Record, hold, token string, profile Profile, wall time.Time) (Record, error) {
	switch {
	case r.UID == "" || r.Version == "":
		return Record{}, fmt.Errorf("resume: %w", ErrNoUID)
	case !s.Holds(r, hold):
		return Record{}, fmt.Errorf("resume: %w", &LostError{Holder: r.Holder})
	}
	next := r
	next.RenewTime = distinctTime(r.RenewTime, wall)
	if next.AcquireTime.IsZero() {
		next.AcquireTime = next.RenewTime // another client has removed or damaged the acquire time
	}
	next.Duration = s.Budget.Duration
	if r.Supporters.Key != "" {
		next.Supporters = s.unsupported(r.Supporters.Number + 1)
	}
	next.Token = token
	next.Profile = profile
	return next, nil
}

// ID returns the number of the hold.
func (h *Hold) ID() string { return h.id }

// Token returns the fencing token, which never changes during a hold.
func (h *Hold) Token() string { return h.token }

// Record returns the last state of the Lease that the API server certainly stored.
func (h *Hold) Record() Record { return h.record }

// Profile returns the profile of the hold's last stored write. Another client may have changed the
// profile in the Lease.
func (h *Hold) Profile() Profile { return h.profile }

// From returns the instant from which the deadline counts.
func (h *Hold) From() time.Duration { return h.from }

// Deadline returns the instant by which every child must be dead. The API server may have stored the last
// attempt that it has answered, or any later one, so the result is safe for each of them.
//
// A supporter promises for the lease duration. So however long the hold rides out an outage, the result is never
// later than a deadline after a renewal that is sent now, with any list: a list never shortens a grant.
func (h *Hold) Deadline() time.Duration {
	at := h.safeUntil(h.from, h.record.Supporters)
	for _, p := range h.pending {
		at = min(at, h.safeUntil(p.sent, p.supporters))
	}
	return at
}

// safeUntil returns the instant until which no other pod takes the slot, less the margin, if the Lease has the
// attempt that was sent at the given instant. Each supporter waits for its promise, or as long as without a
// promise. All other pods wait for the duration in the Lease.
func (h *Hold) safeUntil(sent time.Duration, s api.Supporters) time.Duration {
	at := sent + h.self.Budget.Deadline()
	if len(s.IDs) == 0 {
		return at
	}
	all := sent + h.self.Budget.SupportedDeadline()
	for _, id := range s.IDs {
		all = min(all, max(at, h.promises[id]))
	}
	return all
}

// Required returns the supporters without whose promises the deadline comes earlier.
func (h *Hold) Required() (ids []string) {
	ids = slices.Clone(h.record.Supporters.IDs)
	for _, p := range h.pending {
		for _, id := range p.supporters.IDs {
			if !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// Promised remembers a promise that a supporter has given after the instant "asked". The supporter counts the
// promised lease duration from its receipt of the ask, so this pod counts from the sending, less the margin for
// the different rates of the two clocks.
func (h *Hold) Promised(id string, asked time.Duration) {
	if h.promises == nil {
		h.promises = map[string]time.Duration{}
	}
	h.promises[id] = max(h.promises[id], asked+h.self.Budget.Deadline())
}

// DrainAt returns the instant at which the drain begins, unless a renewal succeeds before that
// instant.
func (h *Hold) DrainAt() time.Duration {
	return h.Deadline() - h.self.Budget.Kill - h.self.Budget.Drain
}

// RenewAt returns the instant at which the next renewal is due. Standbys wait for the duration in
// the Lease. If another client has shortened that duration, the renewal is due after a sixth of the
// shorter duration.
func (h *Hold) RenewAt() time.Duration {
	if d := h.record.Duration; d > 0 {
		return h.from + min(h.self.Budget.Renew, api.RenewPeriod(d))
	}
	return h.from + h.self.Budget.Renew
}

// ExpiresAt returns the instant from which every other pod may acquire the slot, unless a renewal succeeds
// before that instant.
func (h *Hold) ExpiresAt() time.Duration { return h.from + h.self.Budget.Longest() }

// Renew returns the next attempt, which the caller sends at the instant "now". The attempt is
// pending from then on. The argument "supporters" has the IDs of the standbys that are to support this pod. While
// an attempt has no answer, and for a while after the API server has refused a list, the list stays as it is.
func (h *Hold) Renew(now time.Duration, wall time.Time, profile Profile, supporters []string) Attempt {
	next := h.record
	next.RenewTime = distinctTime(h.record.RenewTime, wall)
	next.AcquireTime = h.acquired
	next.Supporters = h.list(now, supporters)
	next.Duration = h.self.Budget.Duration
	if len(next.Supporters.IDs) > 0 {
		next.Duration = h.self.Budget.Supported
	}
	next.Token = h.token
	next.Profile = profile
	attempt := Attempt{Sent: now, Record: next}
	h.pending = append(h.pending, pending{
		sent: now, renew: next.RenewTime, profile: profile, duration: next.Duration, supporters: next.Supporters,
	})
	return attempt
}

// list returns the list of the next attempt.
func (h *Hold) list(now time.Duration, ids []string) api.Supporters {
	last := h.record.Supporters
	next := h.self.unsupported(last.Number + 1)
	next.IDs = ids
	switch n := len(h.pending); {
	case now < h.settled, next.Equal(last) && n == 0:
		return last
	case n > 0:
		return h.pending[n-1].supporters
	}
	return next
}

// settles is the longest time for which a hold has no list after the API server has refused its first one.
const settles = 10 * time.Minute

// Refused remembers that the API server has refused the attempt. If the attempt would have changed the list, the list
// may be the reason, because an older policy on Leases refuses each change. So the next attempts have the list as it
// is. But an API server that has just begun also refuses whatever it is asked, until it knows the pod's rights, and a
// list that stays may name the dead. So the list changes again soon if such a policy has admitted a list of this hold,
// and at once if the API server refuses the list as it is, too.
func (h *Hold) Refused(a Attempt) {
	soon := 2 * h.self.Budget.Renew
	switch last := h.record.Supporters; {
	case a.Record.Version != h.record.Version:
	case a.Record.Supporters.Number == last.Number:
		h.settled, h.refusals = 0, 0
	case last.Key != "":
		h.settled = a.Sent + soon
	default:
		h.settled = a.Sent + min(soon<<min(h.refusals, 10), settles)
		h.refusals++
	}
}

// Answered updates the hold by the answer to an attempt. Answers may arrive in another order than
// the attempts were sent. So Answered ignores an answer if its attempt replaced another version
// than that of the hold's record. If the slot is lost, or nothing was stored, or a shorter duration was
// stored, Answered returns an error.
func (h *Hold) Answered(attempt Attempt, stored Record) error {
	switch {
	case attempt.Record.Version != h.record.Version:
		return nil
	case stored.UID != h.record.UID || !h.self.Holds(stored, h.id):
		return fmt.Errorf("renew: %w", &LostError{Holder: stored.Holder})
	case stored.Version == h.record.Version:
		return fmt.Errorf("renew: %w", ErrNotStored)
	case shortened(attempt.Record.Duration, stored):
		return fmt.Errorf("renew: %w", ErrShortened)
	}
	stored.Supporters = attempt.Record.Supporters
	h.accept(attempt.Sent, stored, attempt.Record.Profile)
	return nil
}

// Read updates the hold by the result of a consistent read, which the caller must send after a
// refused or unanswered attempt. If the slot is lost, Read returns an error. If the Lease contains
// the renew time of a pending attempt, the API server has stored that attempt. The deadline then
// counts from the earliest pending attempt, unless a shorter duration was stored. If the Lease contains
// no such renew time, the deadline stays the same.
func (h *Hold) Read(r Record) error {
	i := h.stored(r)
	switch {
	case r.UID != h.record.UID || !h.self.Holds(r, h.id):
		return fmt.Errorf("read: %w", &LostError{Holder: r.Holder})
	case r.Version == h.record.Version:
		return nil
	case i >= 0 && shortened(h.pending[i].duration, r):
		return fmt.Errorf("read: %w", ErrShortened)
	case i >= 0:
		r.Supporters = h.pending[i].supporters
		h.accept(h.pending[0].sent, r, h.pending[i].profile)
	default:
		r.Supporters = h.record.Supporters
		h.accept(h.from, r, h.profile)
	}
	return nil
}

// stored returns the index of the pending attempt whose renew time and list the record has; negative for
// none. Such a renew time proves that the attempt was stored, because each attempt has another
// renew time than the record that it replaces. Two attempts may have the same renew time, but different lists.
func (h *Hold) stored(r Record) int {
	return slices.IndexFunc(h.pending, func(p pending) bool {
		return p.renew.Equal(r.RenewTime) && p.supporters.Number == r.Supporters.Number
	})
}

// accept makes the record the state of the hold. All pending attempts end, because the API
// server refuses each write that was made for an older version of the Lease.
func (h *Hold) accept(from time.Duration, stored Record, profile Profile) {
	h.from, h.record, h.profile, h.pending = from, stored, profile, nil
}
