// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"errors"
	"fmt"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// Errors by which a caller decides what comes next.
var (
	// ErrNoUID refuses to build a write that would compare nothing: the API
	// server creates what is missing if a PUT names no uid.
	ErrNoUID = errors.New("lease was never read: no uid or no version to compare with")
	// ErrNotStored: the answer has the version that was sent.
	ErrNotStored = errors.New("answered, but not stored")
	// ErrLost: the Lease is no longer of this hold. Match it with a
	// [*LostError] for by whom.
	ErrLost = errors.New("the slot is lost")
)

// LostError says what a Lease says that is no longer ours.
type LostError struct {
	// Holder is empty for a Lease that somebody cleared.
	Holder string
}

func (e *LostError) Error() string {
	if e.Holder == "" {
		return "the slot is lost: somebody cleared the holder"
	}
	return "the slot is lost: held by " + e.Holder
}

// Is matches [ErrLost].
func (e *LostError) Is(target error) bool { return target == ErrLost }

// Record is what one Lease says. The zero value is one that was never read.
type Record struct {
	// UID and Version say which object, and which state of it.
	UID, Version string
	// Holder is empty when the slot is released.
	Holder string
	// Duration is what others have to wait; zero where none is written.
	Duration    time.Duration
	AcquireTime time.Time
	RenewTime   time.Time
	Transitions int
	Hold        string
	Token       string
	BootID      string
	Notes       Notes
}

// Notes are what a holder tells its standbys about itself.
type Notes struct {
	// Address of the holder's pod, and its workload as Kind/name.
	Address, Workload string
	// Serving is since when the application runs; zero while it does not.
	Serving time.Time
}

// Self is who writes.
type Self struct {
	// Identity is [api.Identity] of the pod.
	Identity string
	// BootID is the running kernel's.
	BootID string
	Budget api.Budget
}

// Mine reports whether the Lease names this pod, whatever the hold.
func (s Self) Mine(r Record) bool { return s.Identity != "" && r.Holder == s.Identity }

// Holds reports whether the Lease is of exactly this hold: the same pod, the
// same hold, the same boot. The identity alone proves nothing, because an
// earlier agent process of the pod wrote the same one.
func (s Self) Holds(r Record, hold string) bool {
	return s.Mine(r) && hold != "" && r.Hold == hold && r.BootID == s.BootID
}

// Rebooted reports whether the Lease is this pod's from before a reboot: then
// nothing that it was about can be alive.
func (s Self) Rebooted(r Record) bool {
	return s.Mine(r) && r.BootID != "" && s.BootID != "" && r.BootID != s.BootID
}

// released is what remains in a Lease that nobody holds. Like client-go, it
// says one second: the API server refuses zero, and who waits for a released
// Lease waits for nothing.
const released = time.Second

// Acquire returns the write that makes r ours under a new hold. Whether r is
// free is the [Observer]'s to say.
func (s Self) Acquire(r Record, hold string, notes Notes, wall time.Time) (Record, error) {
	if r.UID == "" || r.Version == "" {
		return Record{}, fmt.Errorf("acquire: %w", ErrNoUID)
	}
	next := r
	next.RenewTime = different(r.RenewTime, wall)
	next.AcquireTime = next.RenewTime
	if r.Holder != s.Identity {
		next.Transitions++
	}
	next.Holder, next.BootID, next.Hold = s.Identity, s.BootID, hold
	next.Duration = s.Budget.Duration
	// The acquiring write cannot know the version that it will get.
	next.Token = ""
	next.Notes = notes
	return next, nil
}

// Release returns the write that frees r for everybody, at once. Only proof
// that no child of the hold is alive justifies sending it.
func (s Self) Release(r Record, wall time.Time) (Record, error) {
	switch {
	case r.UID == "" || r.Version == "":
		return Record{}, fmt.Errorf("release: %w", ErrNoUID)
	case !s.Mine(r):
		return Record{}, fmt.Errorf("release: %w", &LostError{Holder: r.Holder})
	}
	next := r
	next.Holder, next.BootID, next.Hold, next.Token = "", "", "", ""
	next.Notes = Notes{}
	next.Duration = released
	// As client-go does: both times tell when it was released.
	next.RenewTime = different(r.RenewTime, wall)
	next.AcquireTime = next.RenewTime
	return next, nil
}

// different is the wall clock's time in microseconds, or the next one where
// that is the time that stands there already: equal bytes are not stored.
func different(from, wall time.Time) time.Time {
	now := wall.Truncate(time.Microsecond)
	if now.Equal(from.Truncate(time.Microsecond)) {
		now = now.Add(time.Microsecond)
	}
	return now
}
