// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package lease

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// By these errors a caller decides what to do next.
var (
	// ErrNoUID means that the write was not sent, because without a uid and a version the API
	// server would compare nothing. For a PUT without a uid, the API server creates a missing
	// object.
	ErrNoUID = errors.New("lease was never read: no uid or no version to compare with")
	// ErrNotStored means that the answer to a write still has the version that the write should
	// have replaced. So the API server has stored nothing.
	ErrNotStored = errors.New("answered, but not stored")
	// ErrLost means that the Lease no longer names the caller's hold. A [*LostError]
	// names the new holder.
	ErrLost = errors.New("the slot is lost")
	// ErrShortened means that the API server stored a shorter duration than the write had. For example, a
	// mutating webhook of another product changes Leases. Standbys wait only for the stored duration, so
	// no deadline of this pod would be safe. ErrShortened is also [ErrLost].
	ErrShortened = fmt.Errorf("%w: the API server stored a shorter lease duration than this pod wrote (does a webhook change Leases?)", ErrLost)
)

// LostError reports that the slot is lost, and names the present holder of its Lease.
type LostError struct {
	// Holder is the present holder; empty if a write has cleared the holder.
	Holder string
}

func (e *LostError) Error() string {
	if e.Holder == "" {
		return "the slot is lost: somebody cleared the holder"
	}
	return "the slot is lost: held by " + e.Holder
}

// The method "Is" reports whether the argument "target" is [ErrLost].
func (e *LostError) Is(target error) bool { return target == ErrLost }

// Record is the content of one Lease. The zero value means a Lease that was never read.
type Record struct {
	// UID identifies the Lease. Version identifies one state of the Lease.
	UID, Version string
	// Holder is the identity of the holder; empty if the slot is released.
	Holder string
	// Duration is the time for which other pods must wait after the holder's last renewal; zero
	// if the Lease contains no duration.
	Duration    time.Duration
	AcquireTime time.Time
	RenewTime   time.Time
	Transitions int
	Hold        string
	Token       string
	BootID      string
	Profile     Profile
	// Supporters are standbys that may take the slot before the Lease expires.
	Supporters api.Supporters
	// Paused is the annotation by which a person pauses the slot. No pod acquires a paused slot.
	// Yield is the annotation by which a person requests that the holder yields.
	Paused api.Pause
	Yield  api.Yield
	// Stamp is the stamp of a shard's Lease. Each write keeps the stamp, because only enroll
	// writes stamps.
	Stamp api.Stamp
	// Successor is the identity of the pod that a release names; empty for none.
	Successor string
	// Rollout is the value of [api.RolloutAnnotation]. The rules of this package do not depend
	// on it. Each write keeps the value, unless the caller sets another one.
	Rollout string
	// Done are the done keys of a once claim. Each write keeps them, and a release may add one
	// key.
	Done api.Done
	// Failures are the failures of a once claim. Each write keeps them, except a release after
	// a success or a failure.
	Failures api.Failures
}

// Next returns the identity of the pod that is to hold next; empty for none. A release names this pod,
// or a person requests that the present hold yields to this pod.
func (r Record) Next() string {
	switch {
	case r.Holder == "":
		return r.Successor
	case r.Yield.Hold == r.Hold:
		return r.Yield.Successor
	}
	return ""
}

// Period returns the time between two renewals of the record's holder, as far as a pod with the given budget knows.
// A list of supporters names the holder's own lease duration. Without a list, the duration in the Lease may be one that
// the holder states beyond its lease duration ([api.Budget.PeriodOf]).
func (r Record) Period(own api.Budget) time.Duration {
	period := own.PeriodOf(min(r.Duration, api.MaxLeaseDuration))
	if r.Supporters.Key != "" {
		period = min(period, api.RenewPeriod(r.Supporters.Wait))
	}
	return period
}

// sameVersion reports whether both records have the same version of the same Lease.
func (r Record) sameVersion(other Record) bool {
	return r.UID == other.UID && r.Version == other.Version
}

// sameState reports whether both records show the same state of the same Lease. The version alone
// is no proof: after a restore of etcd (without etcdutl --bump-revision), an old version may name a
// new state.
func (r Record) sameState(other Record) bool {
	return r.sameVersion(other) &&
		r.Holder == other.Holder && r.Hold == other.Hold && r.RenewTime.Equal(other.RenewTime)
}

// Profile has facts about a holder. The holder publishes its profile in the Lease for the standbys.
type Profile struct {
	// Address is the IP address of the holder's pod. Workload is the pod's workload, as
	// Kind/name.
	Address, Workload string
	// Job is the UID of the pod's Job, if the pod may skip; otherwise empty.
	Job string
	// Revision is the revision of the holder's pod.
	Revision api.Revision
	// Serving is the time since which the application serves; zero while it does not serve.
	Serving time.Time
	// Leaving is the second word of [api.LeavingAnnotation] while the holder leaves its Services;
	// empty while the holder does not leave. The field "Leave" is the first word, which identifies
	// the leave. So the offers of other pods can name the leave.
	Leaving, Leave string
}

// Self describes the pod that writes.
type Self struct {
	// Identity is [api.Identity] of the pod.
	Identity string
	// BootID is the boot id of the running kernel.
	BootID string
	// Boots are the boot ids under which agent processes have used the pod's volume, among them
	// BootID. If Boots is nil, the pod has no such volume.
	Boots  []string
	Budget api.Budget
	// Key is the public key of the agent's process, if the pod has supporters, or supports other pods.
	Key string
}

// Mine reports whether the Lease names this pod as its holder, whatever the hold.
func (s Self) Mine(r Record) bool { return s.Identity != "" && r.Holder == s.Identity }

// Holds reports whether the Lease names this pod and this hold, under the present boot. The
// identity alone proves nothing, because an earlier agent process of the pod had the same
// identity.
func (s Self) Holds(r Record, hold string) bool {
	return s.Mine(r) && hold != "" && r.Hold == hold && r.BootID == s.BootID
}

// Noted reports whether the pod's volume has a note of the boot in the Lease. Another machine may run
// the same pod with an empty volume. The first machine may then still run a child of the hold in the
// Lease. Neither the boot id nor a fresh shim of the other machine proves the death of that child.
// Without such a volume, or without a boot id in the Lease, the result is true.
func (s Self) Noted(r Record) bool {
	return s.Boots == nil || r.BootID == "" || slices.Contains(s.Boots, r.BootID)
}

// Rebooted reports whether this pod wrote the Lease before its machine rebooted. After a reboot no
// process of the hold in the Lease can be alive.
func (s Self) Rebooted(r Record) bool {
	return s.Mine(r) && r.BootID != "" && s.BootID != "" && r.BootID != s.BootID
}

// released is the duration in a released Lease: one second, as client-go writes,
// because the API server refuses zero. No pod waits until a released Lease expires.
const released = time.Second

// Acquire returns the write by which this pod acquires r under a new hold. Acquire does not
// check whether r is free; [Observer.FreeAt] decides that.
func (s Self) Acquire(r Record, hold string, profile Profile, wall time.Time) (Record, error) {
	if r.UID == "" || r.Version == "" {
		return Record{}, fmt.Errorf("acquire: %w", ErrNoUID)
	}
	next := r
	next.RenewTime = distinctTime(r.RenewTime, wall)
	next.AcquireTime = next.RenewTime
	next.Transitions = s.Transitions(r)
	next.Holder, next.BootID, next.Hold = s.Identity, s.BootID, hold
	next.Duration = s.Budget.Duration
	next.Supporters = api.Supporters{} // the first renewal says whether this pod wants any
	// The token is the version that this write will get, so the write cannot contain it.
	next.Token = ""
	next.Profile = profile
	next.Yield, next.Successor = api.Yield{}, ""
	return next, nil
}

// unsupported returns the list of a holder that has no supporter yet.
func (s Self) unsupported(number int) api.Supporters {
	if s.Key == "" {
		return api.Supporters{}
	}
	return api.Supporters{Number: number, Wait: s.Budget.Duration, Key: s.Key}
}

// Transitions returns the number of transitions after this pod has acquired r. A thief of a service
// account token may have written the largest possible number of transitions. The API server refuses a
// larger number, so the result is then the same number.
func (s Self) Transitions(r Record) int {
	if r.Holder == s.Identity || r.Transitions >= math.MaxInt32 {
		return r.Transitions
	}
	return r.Transitions + 1
}

// Release returns the write that immediately frees r. If the argument "successor" is not empty, the
// write names that pod. The caller must have proof that no child of the hold is alive. If the Lease
// does not name this pod, the error is a [*LostError].
func (s Self) Release(r Record, wall time.Time, successor string) (Record, error) {
	switch {
	case r.UID == "" || r.Version == "":
		return Record{}, fmt.Errorf("release: %w", ErrNoUID)
	case !s.Mine(r):
		return Record{}, fmt.Errorf("release: %w", &LostError{Holder: r.Holder})
	}
	next := r
	next.Holder, next.BootID, next.Hold, next.Token = "", "", "", ""
	next.Profile = Profile{}
	next.Supporters = api.Supporters{}
	next.Yield, next.Successor = api.Yield{}, successor
	next.Duration = released
	// Like client-go, Release writes the instant of the release into RenewTime and AcquireTime.
	next.RenewTime = distinctTime(r.RenewTime, wall)
	next.AcquireTime = next.RenewTime
	return next, nil
}

// distinctTime returns the wall clock's time in microseconds. If that time equals the argument
// "from", distinctTime adds a microsecond, because the API server does not store a write that
// changes nothing.
func distinctTime(from, wall time.Time) time.Time {
	now := wall.Truncate(time.Microsecond)
	if now.Equal(from.Truncate(time.Microsecond)) {
		now = now.Add(time.Microsecond)
	}
	return now
}
