// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// Errors by which a caller decides its next step.
var (
	// ErrNoUID refuses a write that would compare nothing. For a PUT without a
	// uid, the API server creates a missing object.
	ErrNoUID = errors.New("lease was never read: no uid or no version to compare with")
	// ErrNotStored means that the answer contains the version that was sent.
	ErrNotStored = errors.New("answered, but not stored")
	// ErrLost means that the Lease no longer belongs to this hold. A [*LostError]
	// names the new holder.
	ErrLost = errors.New("the slot is lost")
)

// LostError reports the holder of a Lease that this pod has lost.
type LostError struct {
	// Holder is empty if a write cleared it.
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

// Record is the content of one Lease. Its zero value stands for a Lease that was
// never read.
type Record struct {
	// UID identifies the Lease. Version identifies one state of the Lease.
	UID, Version string
	// Holder is empty when the slot is released.
	Holder string
	// Duration is the time for which other pods must wait; zero if none is
	// written.
	Duration    time.Duration
	AcquireTime time.Time
	RenewTime   time.Time
	Transitions int
	Hold        string
	Token       string
	BootID      string
	Notes       Notes
	// Paused and Yield are annotations by which a person pauses the slot, or asks its
	// holder to yield. No pod acquires a paused slot.
	Paused api.Pause
	Yield  api.Yield
	// Stamp is the stamp of the Lease of a shard. Each write keeps the stamp, because enroll
	// alone writes stamps.
	Stamp api.Stamp
	// Successor is the identity of the pod that a release names; empty for none.
	Successor string
	// Rollout is the value of [api.RolloutAnnotation]. The rules never read Rollout.
	// Each write keeps its value, unless the caller sets another value.
	Rollout string
	// Done are the done keys of a once claim. Each write keeps them, and a release may add
	// one.
	Done api.Done
	// Failures are the failures of a once claim. Each write keeps their text, except a release
	// after a success or a failure.
	Failures api.Failures
}

// Notes are the facts that a holder publishes about itself for its standbys.
type Notes struct {
	// Address is the IP address of the holder's pod. Workload is the pod's workload, as
	// Kind/name.
	Address, Workload string
	// Job is the UID of the pod's Job, if the pod may skip; otherwise empty.
	Job string
	// Revision is the revision of the holder's pod.
	Revision api.Revision
	// Serving is the instant at which the application began to serve. Serving is
	// zero while the application does not serve.
	Serving time.Time
	// Leaving is the value of [api.LeavingAnnotation], while the holder leaves its
	// Services. That value is empty while the holder stays. The field Leave identifies the
	// leave, so that the offers of other pods can name it.
	Leaving, Leave string
}

// Self identifies the pod that writes.
type Self struct {
	// Identity is [api.Identity] of the pod.
	Identity string
	// BootID is the boot id of the running kernel.
	BootID string
	Budget api.Budget
}

// Mine reports whether the Lease names this pod as its holder, under any hold.
func (s Self) Mine(r Record) bool { return s.Identity != "" && r.Holder == s.Identity }

// Holds reports whether the Lease belongs to exactly this hold of this pod, under
// this boot. The identity alone proves nothing, because an earlier agent process
// of the pod had the same identity.
func (s Self) Holds(r Record, hold string) bool {
	return s.Mine(r) && hold != "" && r.Hold == hold && r.BootID == s.BootID
}

// Rebooted reports whether this pod wrote the Lease before a reboot of its
// machine. Then no process of that hold can be alive.
func (s Self) Rebooted(r Record) bool {
	return s.Mine(r) && r.BootID != "" && s.BootID != "" && r.BootID != s.BootID
}

// released is the duration in a released Lease: one second, as client-go writes,
// because the API server refuses zero. No pod waits for a released Lease.
const released = time.Second

// Acquire returns the write by which this pod acquires r under a new hold. The
// [Observer] decides whether r is free.
func (s Self) Acquire(r Record, hold string, notes Notes, wall time.Time) (Record, error) {
	if r.UID == "" || r.Version == "" {
		return Record{}, fmt.Errorf("acquire: %w", ErrNoUID)
	}
	next := r
	next.RenewTime = distinctTime(r.RenewTime, wall)
	next.AcquireTime = next.RenewTime
	// A thief of a service account token may have written the largest number of
	// transitions. The API server refuses a larger number, so no pod could then acquire
	// the slot.
	if r.Holder != s.Identity && r.Transitions < math.MaxInt32 {
		next.Transitions++
	}
	next.Holder, next.BootID, next.Hold = s.Identity, s.BootID, hold
	next.Duration = s.Budget.Duration
	// The token is the version after this write, so the write cannot contain it.
	next.Token = ""
	next.Notes = notes
	next.Yield, next.Successor = api.Yield{}, ""
	return next, nil
}

// Release returns the write that frees r at once, for all pods. The write names a
// successor, unless that is empty. The caller must have proof that no child of the hold is
// alive.
func (s Self) Release(r Record, wall time.Time, successor string) (Record, error) {
	switch {
	case r.UID == "" || r.Version == "":
		return Record{}, fmt.Errorf("release: %w", ErrNoUID)
	case !s.Mine(r):
		return Record{}, fmt.Errorf("release: %w", &LostError{Holder: r.Holder})
	}
	next := r
	next.Holder, next.BootID, next.Hold, next.Token = "", "", "", ""
	next.Notes = Notes{}
	next.Yield, next.Successor = api.Yield{}, successor
	next.Duration = released
	// Like client-go, Release writes the instant of the release into both times.
	next.RenewTime = distinctTime(r.RenewTime, wall)
	next.AcquireTime = next.RenewTime
	return next, nil
}

// distinctTime returns the wall clock's time in microseconds. If that time equals the
// argument from, distinctTime adds a microsecond, because the API server does not store
// equal bytes.
func distinctTime(from, wall time.Time) time.Time {
	now := wall.Truncate(time.Microsecond)
	if now.Equal(from.Truncate(time.Microsecond)) {
		now = now.Add(time.Microsecond)
	}
	return now
}
