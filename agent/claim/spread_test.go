// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/lease"
)

// rival is a claim of one slot, for which another pod also competes.
type rival struct {
	*Claim
	t       *testing.T
	now     time.Duration
	version int
	look    Action
}

func newRival(t *testing.T, seed uint64) *rival {
	r := &rival{t: t, now: time.Second}
	r.Claim = New(Config{Slots: []string{"s"}, Self: self(t, "a", 30*time.Second), Random: rand.NewPCG(seed, 2)}, 0)
	actions, _ := r.Next(r.now, competing(r.now))
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
		actions, wake := r.Next(r.now, competing(r.now))
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
	_ = r.Answered(r.now, a, Answer{Err: errors.New("conflict"), Conflict: true})
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

func TestNamedSuccessorWritesAtOnceDespiteConflicts(t *testing.T) {
	for seed := range uint64(100) {
		r := newRival(t, seed)
		r.loses(time.Second)
		_, waited := r.writes(r.need.Self.Identity)
		assert.Zero(t, waited)
	}
}

func TestAcquisitionsShortenTheSpread(t *testing.T) {
	s := spread{}
	s.conflicted(time.Second)
	for range 30 {
		s.acquired()
	}
	assert.Zero(t, s.limit)
}

func TestWritesDelayStaysTheSameForAVersion(t *testing.T) {
	d, s, random := delay{}, &spread{limit: mostSpread}, rand.NewPCG(1, 2).Uint64
	first := d.before(lease.Record{Version: "1"}, s, random)
	assert.Equal(t, first, d.before(lease.Record{Version: "1"}, s, random))
	assert.NotEqual(t, first, d.before(lease.Record{Version: "2"}, s, random))
}

// Each further look costs the API server a read and a watch.
func TestConflictNeverMakesPodLookAtMoreSlots(t *testing.T) {
	now, writes := time.Second, 0
	f := newFirst(t, true, func(string) bool { return true })
	for until := now + time.Second; now < until && writes < 2; now += time.Millisecond {
		actions, _ := f.Next(now, competing(now))
		for _, a := range actions {
			switch a.Kind {
			case Look:
				f.looked[a.Slot] = true
				a.Read(now, lease.Record{UID: a.Slot, Version: "1"})
			case Acquire:
				if writes++; writes == 1 {
					now += mostSpread
					_ = f.Answered(now, a, Answer{Err: errors.New("conflict"), Conflict: true})
				}
			case EndLook, Read, Renew, Release, StandBack:
			}
		}
	}
	assert.Equal(t, 2, writes)
	assert.Len(t, f.looked, fewLooks)
}

// After a release, another pod is about to acquire the slot. Reads of the pod that has released the
// slot would delay the other pod's requests.
func TestPodReadsOtherSlotsSoonAfterItsRelease(t *testing.T) {
	now := time.Second
	f := newFirst(t, true, func(string) bool { return true })
	looks := 0
	of := func(kind Kind) (found []Action) {
		actions, _ := f.Next(now, competing(now))
		for _, a := range actions {
			if a.Kind == kind {
				found = append(found, a)
			}
			if a.Kind == Look {
				looks++
			}
		}
		return found
	}
	for _, a := range of(Look) {
		a.Read(now, lease.Record{UID: a.Slot, Version: "1"})
	}
	acquire := of(Acquire)[0]
	stored := acquire.Record
	stored.Version = "2"
	require.NoError(t, f.Answered(now, acquire, Answer{Record: stored}))
	of(EndLook)
	require.Equal(t, Held, f.State().Stage)
	require.NotEmpty(t, of(EndLook), "a holder looks at no other slot")

	now, looks = now+time.Minute/2, 0 // the earlier looks have used up the bound on requests
	f.LetGo(now, Parting{GiveBack: true, HeadStart: time.Second})
	release := of(Release)[0]
	now += 10 * time.Millisecond
	of(Look)
	assert.Zero(t, looks, "the release is not stored yet")
	stored = release.Record
	stored.Version = "3"
	require.NoError(t, f.Answered(now, release, Answer{Record: stored}))
	now += quick - time.Millisecond
	of(Look)
	assert.Zero(t, looks)
	now += time.Millisecond
	assert.NotEmpty(t, of(Look))
}

// A container in CrashLoopBackOff has no shim, so its pod does not compete.
func TestPodLooksAfterReleaseWithoutANewShim(t *testing.T) {
	now, looks, compete := time.Second, 0, true
	f := newFirst(t, true, func(string) bool { return true })
	of := func(kind Kind) (found []Action) {
		facts := competing(now)
		facts.Compete = compete
		actions, _ := f.Next(now, facts)
		for _, a := range actions {
			if a.Kind == kind {
				found = append(found, a)
			}
			if a.Kind == Look {
				looks++
			}
		}
		return found
	}
	for _, a := range of(Look) {
		a.Read(now, lease.Record{UID: a.Slot, Version: "1"})
	}
	acquire := of(Acquire)[0]
	stored := acquire.Record
	stored.Version = "2"
	require.NoError(t, f.Answered(now, acquire, Answer{Record: stored}))
	of(EndLook)
	of(EndLook)
	now, looks, compete = now+time.Minute/2, 0, false
	f.LetGo(now, Parting{GiveBack: true})
	release := of(Release)[0]
	stored = release.Record
	stored.Version = "3"
	require.NoError(t, f.Answered(now, release, Answer{Record: stored}))
	now += quick
	of(Look)
	assert.NotZero(t, looks)
}
