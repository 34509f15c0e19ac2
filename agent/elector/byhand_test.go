// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package elector

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/api"
)

// kinds lets the claim decide. The results are the kinds of the claim's actions, and the instant of
// the next decision.
func kinds(c *claim, now time.Duration, f Facts) (all []Kind, wake time.Duration) {
	actions, wake := next(c, now, f)
	for _, a := range actions {
		all = append(all, a.Kind)
	}
	return all, wake
}

func TestPausedSlotIsAcquiredByNobody(t *testing.T) {
	for name, r := range map[string]lease.Record{
		"released":             {Paused: api.PauseHold},
		"released, to stop":    {Paused: api.PauseStop},
		"unknown value":        {Paused: "off"},
		"names this pod":       {Paused: api.PauseHold, Successor: "a_u"},
		"holder that vanished": {Paused: api.PauseHold, Holder: "b_u", Hold: "4711", Duration: 30 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			c, f, free := claimOfOneSlot(t)
			r.UID, r.Version = free.UID, free.Version
			look := only(t, c, 0, f, Look)
			look.Read(0, r)
			for _, at := range []time.Duration{0, time.Minute, longestSilence - 1} {
				sent, wake := kinds(c, at, f)
				assert.Empty(t, sent, "after %v", at)
				assert.Equal(t, longestSilence, wake)
			}
			look.Watched(longestSilence-1, r)
			sent, _ := kinds(c, longestSilence, f)
			require.Empty(t, sent, "the watch has told something")
			look = only(t, c, 2*longestSilence, f, Look) // the claim looks again, because the watch may be broken
			look.Read(time.Hour, r)
			sent, _ = kinds(c, time.Hour, f)
			require.Empty(t, sent)
			r.Version, r.Paused, r.Holder, r.Successor = "2", "", "", ""
			look.Watched(time.Hour, r)
			only(t, c, time.Hour, f, Acquire)
		})
	}
}

func TestHolderNoticesPauseAndYieldAnnotationsAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		written lease.Record
		paused  Pause
		yield   api.Yield
	}{
		"paused":       {lease.Record{Paused: api.PauseStop}, Pause{"slot-0", api.PauseStop}, api.Yield{}},
		"yield":        {lease.Record{Yield: api.Yield{Successor: "b_u"}}, Pause{}, api.Yield{Successor: "b_u"}},
		"another hold": {lease.Record{Yield: api.Yield{Hold: "x"}}, Pause{}, api.Yield{}},
	} {
		t.Run(name, func(t *testing.T) {
			m := semaphore(t, 1, 1)
			p := m.pods[0]
			p.quick = false
			r := m.leases[0].record
			r.Paused, r.Yield = c.written.Paused, c.written.Yield
			if r.Yield.Hold == "" && r.Yield.Successor != "" {
				r.Yield.Hold, c.yield.Hold = r.Hold, r.Hold
			}
			m.store(m.leases[0], r)
			m.settle()
			state := p.claim.State()
			assert.Equal(t, c.paused, state.Paused)
			assert.Equal(t, c.yield, state.Yield)
		})
	}
}

func TestHolderRenewsAShortenedLeaseAtOnce(t *testing.T) {
	m := semaphore(t, 2, 1)
	held := m.leases[0].record
	shorter := held
	shorter.Duration = time.Second
	m.store(m.leases[0], shorter)
	m.settle()
	assert.Equal(t, held.Duration, m.leases[0].record.Duration)
	m.advance(2 * held.Duration)
	assert.Equal(t, held.Hold, m.leases[0].record.Hold, "no standby has acquired the slot")
}

// A client may damage any field of a held Lease. The damage must neither end the hold nor cause a
// series of requests, and the next renewal repairs the field.
func TestHolderRepairsADamagedLeaseWithFewRequests(t *testing.T) {
	later := time.Date(9000, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, damage := range map[string]func(*lease.Record){
		"no acquire time":   func(r *lease.Record) { r.AcquireTime = time.Time{} },
		"late acquire time": func(r *lease.Record) { r.AcquireTime = later },
		"no renew time":     func(r *lease.Record) { r.RenewTime = time.Time{} },
		"no serving time":   func(r *lease.Record) { r.Profile.Serving = time.Time{} },
		"another address":   func(r *lease.Record) { r.Profile.Address = "192.0.2.1" },
		"no duration":       func(r *lease.Record) { r.Duration = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			m := semaphore(t, 2, 1)
			held := m.leases[0].record
			r := held
			damage(&r)
			m.store(m.leases[0], r)
			m.settle()
			before := m.version
			m.advance(2 * held.Duration)
			assert.LessOrEqual(t, m.version-before, 2*6+1, "a renewal in each sixth of the duration")
			is := m.leases[0].record
			assert.Equal(t, held.Hold, is.Hold)
			assert.Equal(t, held.AcquireTime, is.AcquireTime)
			assert.Equal(t, held.Profile, is.Profile)
			assert.Equal(t, held.Duration, is.Duration)
			assert.True(t, is.RenewTime.After(held.RenewTime))
		})
	}
}

func TestStandbyGivesTheNamedSuccessorAHeadStart(t *testing.T) {
	released := lease.Record{UID: "uid", Version: "1", Successor: "b_u"}
	c, f, _ := claimOfOneSlot(t)
	look := only(t, c, 0, f, Look)
	look.Read(time.Second, released)
	sent, wake := kinds(c, time.Second, f)
	require.Empty(t, sent)
	require.Equal(t, time.Second+successorsHeadStart, wake, "counted from when the release was seen")
	sent, _ = kinds(c, wake-1, f)
	require.Empty(t, sent)
	acquire := only(t, c, wake, f, Acquire)
	assert.Empty(t, acquire.Record.Successor, "the acquiring write removes the name")
	assert.Empty(t, acquire.Record.Yield)

	c, f, _ = claimOfOneSlot(t)
	released.Successor = "a_u"
	look = only(t, c, 0, f, Look)
	look.Read(time.Second, released)
	only(t, c, time.Second, f, Acquire)
}

func TestYieldHandsTheSlotToTheSuccessor(t *testing.T) {
	for _, named := range []string{"b", "c", "d", "e", "gone"} {
		t.Run(named, func(t *testing.T) {
			m := semaphore(t, 5, 1)
			holder := m.running()
			if named == holder {
				named = "a"
			}
			r := m.leases[0].record
			r.Yield = api.Yield{Hold: r.Hold, Successor: api.Identity(named, "u")}
			m.store(m.leases[0], r)
			m.settle()
			if named != "gone" {
				assert.Equal(t, named, m.running())
				return
			}
			assert.Empty(t, m.running())
			assert.Equal(t, "gone_u", m.leases[0].record.Successor)
			m.advance(successorsHeadStart * 13 / 12)
			assert.NotEmpty(t, m.running(), "a successor that is gone delays the others once")
			assert.NotEqual(t, holder, m.running())
			assert.Empty(t, m.leases[0].record.Successor)
		})
	}
}

// The paused slot's hold has ended without proof that its child is dead. If the pod took
// another slot, the grant for that other slot would end the doubts of the shims. Then a later
// agent process would wrongly take the unproven hold for a proven one.
func TestPodWithUnprovenHoldNeverTakesAnotherSlot(t *testing.T) {
	m := semaphore(t, 1, 2)
	p := m.pods[0]
	own := p.lease(p.child.tokens[0].Slot)
	p.start()
	p.heard, p.fresh = false, true
	r := own.record
	r.Paused = api.PauseStop
	m.store(own, r)
	p.step()
	m.settle()
	m.advance(5 * time.Minute)
	require.Empty(t, p.hold)
	assert.Nil(t, p.child)
	r.Paused = ""
	m.store(own, r)
	m.settle()
	m.advance(time.Minute)
	assert.NotEmpty(t, p.hold, "the hold is waited out once the slot is resumed")
}
