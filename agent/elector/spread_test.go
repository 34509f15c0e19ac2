// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package elector

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
)

// rival is a claim of one slot, for which another pod also competes.
type rival struct {
	*claim
	t       *testing.T
	now     time.Duration
	version int
	look    Action
}

func newRival(t *testing.T, seed uint64) *rival {
	r := &rival{t: t, now: time.Second}
	r.claim = newClaim(Claim{Need: api.Need{Slots: []string{"s"}}, Self: self(t, "a", 30*time.Second), Random: rand.NewPCG(seed, 2)}, 0)
	actions, _ := next(r.claim, r.now, competing(r.now))
	require.Len(t, actions, 1)
	r.look = actions[0]
	r.look.Read(r.now, r.record("z_1"))
	return r
}

// record returns the next version of the Lease. The Lease names the holder, if there is one.
func (r *rival) record(holder string) lease.Record {
	r.version++
	l := lease.Record{UID: "u", Version: fmt.Sprint(r.version), Holder: holder}
	if holder != "" {
		l.Hold, l.Duration = "h", time.Hour
	}
	return l
}

// writes shows the claim a release that names the successor. The results are the acquiring write
// and the time until the claim sends that write.
func (r *rival) writes(successor string) (Action, time.Duration) {
	r.now += 10 * time.Second
	free := r.record("")
	free.Successor = successor
	r.look.Watched(r.now, free)
	for from := r.now; r.now < from+time.Second; {
		actions, wake := next(r.claim, r.now, competing(r.now))
		for _, a := range actions {
			if a.Kind == Acquire {
				return a, r.now - from
			}
		}
		r.now = wake
	}
	require.Fail(r.t, "no acquiring write within a second")
	return Action{}, 0
}

// loses makes another pod acquire the slot before the claim. The refusal of the claim's write takes
// the given time. The result is the time until the claim sends its write.
func (r *rival) loses(took time.Duration) time.Duration {
	a, waited := r.writes("")
	r.now += took
	_ = r.answered(r.now, a, Answer{Err: errors.New("conflict"), Conflict: true})
	r.look.Watched(r.now, r.record("z_1"))
	return waited
}

func TestSlowConflictSpreadsTheNextAcquiringWrite(t *testing.T) {
	for took, limit := range map[time.Duration]time.Duration{
		10 * time.Millisecond: 10 * time.Millisecond,
		time.Second:           mostSpread,
	} {
		first, next := time.Duration(0), time.Duration(0)
		for seed := range uint64(100) {
			r := newRival(t, seed)
			first = max(first, r.loses(took))
			next = max(next, r.loses(took))
		}
		assert.Zero(t, first, "a pod without a conflict writes at once")
		assert.Less(t, next, limit)
		assert.Greater(t, next, limit/2)
	}
}

// Each refused write costs the API server as much work as the write of the next holder.
func TestFewOfManyStandbysConflictInATakeover(t *testing.T) {
	const (
		standbys  = 16
		notice    = 20 * time.Millisecond // from a standby's write until the others see the write
		takeovers = 500
	)
	spreads, delays := make([]spread, standbys+1), make([]delay, standbys+1)
	random, holder, conflicts, waited := rand.NewPCG(1, 2).Uint64, 0, 0, time.Duration(0)
	for version := range takeovers {
		held := lease.Record{Version: fmt.Sprint("held ", version), Holder: "a_1"}
		free := lease.Record{Version: fmt.Sprint("free ", version)}
		next, times := -1, make([]time.Duration, standbys+1)
		for i := range delays {
			delays[i].before(held, &spreads[i], random)
			if times[i] = delays[i].before(free, &spreads[i], random); i != holder && (next < 0 || times[i] < times[next]) {
				next = i
			}
		}
		for i, at := range times {
			switch {
			case i == next:
				spreads[i].acquired()
			case i != holder && at <= times[next]+notice:
				spreads[i].conflicted(notice)
				conflicts++
			default:
				continue
			}
			delays[i].over()
		}
		holder, waited = next, waited+times[next]
	}
	assert.Less(t, float64(conflicts)/takeovers, standbys/4.)
	assert.Less(t, waited/takeovers, mostSpread/16, "the mean delay of the next holder")
}

// releaser is the claim of a pod that holds one of 64 slots, and then releases that slot.
type releaser struct {
	*first
	now time.Duration
	// stays reports that the pod competes after the release. The field "looks" counts the looks that
	// have begun.
	stays bool
	looks int
}

func newReleaser(t *testing.T, stays bool) *releaser {
	r := &releaser{first: newFirst(t, true, func(string) bool { return true }), now: time.Second, stays: true}
	for _, a := range r.of(Look) {
		a.Read(r.now, lease.Record{UID: a.Slot, Version: "1"})
	}
	r.stored(r.of(Acquire)[0], "2")
	r.of(EndLook)
	require.Equal(t, Held, r.State().Stage)
	require.NotEmpty(t, r.of(EndLook), "a holder looks at no other slot")
	r.now, r.looks, r.stays = r.now+time.Minute/2, 0, stays // by then the bound permits further looks
	r.LetGo(r.now, Parting{GiveBack: true, HeadStart: time.Second})
	return r
}

// of returns the actions of the given kind that the claim demands now.
func (r *releaser) of(kind Kind) (found []Action) {
	facts := competing(r.now)
	facts.Compete = r.stays
	actions, _ := next(r.claim, r.now, facts)
	for _, a := range actions {
		if a.Kind == kind {
			found = append(found, a)
		}
		if a.Kind == Look {
			r.looks++
		}
	}
	return found
}

// stored answers a write: the API server has stored the write under the version.
func (r *releaser) stored(a Action, version string) {
	record := a.Record
	record.Version = version
	require.NoError(r.t, r.answered(r.now, a, Answer{Record: record}))
}

// After a release, another pod is about to acquire the slot. Reads of the pod that has released the
// slot would delay the other pod's requests.
func TestPodReadsOtherSlotsSoonAfterItsRelease(t *testing.T) {
	r := newReleaser(t, true)
	release := r.of(Release)[0]
	r.now += 10 * time.Millisecond
	r.of(Look)
	assert.Zero(t, r.looks, "the release is not stored yet")
	r.stored(release, "3")
	r.now += pace.Backoff(0) - time.Millisecond
	r.of(Look)
	assert.Zero(t, r.looks)
	r.now += time.Millisecond
	assert.NotEmpty(t, r.of(Look))
}

func TestNamedSuccessorWritesAtOnceDespiteConflicts(t *testing.T) {
	for seed := range uint64(100) {
		r := newRival(t, seed)
		r.loses(time.Second)
		_, waited := r.writes(r.need.Self.Identity)
		assert.Zero(t, waited)
	}
}
