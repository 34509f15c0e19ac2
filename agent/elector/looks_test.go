// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package elector

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// readsOf returns a map that has the link l for each of the first n slots. The keys are the names
// of these slots.
func readsOf(n int, l link) map[string]link {
	reads := map[string]link{}
	for i := range n {
		reads["slot-"+strconv.Itoa(i)] = l
	}
	return reads
}

// spoil sets the link of the reads of the first n slots, and ends the watches of these slots.
func (p *modelPod) spoil(n int, l link) {
	p.reads = readsOf(n, l)
	for _, slot := range p.names[:n] {
		p.endWatch(slot, errCut)
	}
	p.step()
	p.model.settle()
}

// endWatch ends the look of a slot with the error. The error nil means that the watch of
// the look has timed out.
func (p *modelPod) endWatch(slot string, err error) {
	for _, l := range p.looks {
		if l.action.Slot == slot {
			p.endLook(l, Answer{Err: err})
			return
		}
	}
}

// The method "free" ends the hold of a slot, and names a successor.
func (m *model) free(i int, successor string) {
	r := m.leases[i].record
	r.Holder, r.Hold, r.Successor = "", "", successor
	m.store(m.leases[i], r)
}

// The method "until" lets time pass until the pod has a child, or until the duration "most" has
// passed. The result is the time that has passed.
func (p *modelPod) until(most time.Duration) time.Duration {
	from := p.model.now
	for p.model.now < from+most && p.child == nil {
		p.model.advance(50 * time.Millisecond)
		p.model.settle()
	}
	return p.model.now - from
}

// quiet lets time pass: the given number of seconds, and 370 ms times the seed.
func (p *modelPod) quiet(seconds int, seed int) {
	p.model.advance(time.Duration(seconds)*time.Second + time.Duration(seed)*370*time.Millisecond)
	p.model.settle()
}

// failures are the ways in which the reads of single Leases fail.
var failures = map[string]link{"refused reads": refused, "reads without answers": deaf}

// While the agent cannot read a Lease, the agent must assume that an earlier agent process of
// the pod has held that slot. So the pod waits a lease duration before its first start, but no
// longer, in whichever way the reads fail.
func TestUnreadableLeasesNeverDelayChildBeyondLeaseDuration(t *testing.T) {
	for name, l := range failures {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(10) {
				_, p := crowded(t, func(p *modelPod) {
					p.processes, p.reads = 7*seed, readsOf(8, l)
				}, lease.Record{})
				assert.LessOrEqual(t, p.until(5*time.Minute), 35*time.Second)
			}
		})
	}
}

func TestEndedWatchRestartsSoonAlthoughOtherReadsFail(t *testing.T) {
	for name, l := range failures {
		for end, most := range map[error]time.Duration{nil: 50 * time.Millisecond, errCut: 10 * time.Second} {
			t.Run(fmt.Sprint(name, ", ", end), func(t *testing.T) {
				for seed := range 10 {
					m, p := crowded(t, func(p *modelPod) { p.processes = 7 * uint64(seed) }, occupied)
					p.quiet(10, 0)
					p.spoil(16, l)
					p.quiet(90, seed)
					p.endWatch("slot-31", end)
					p.step()
					m.free(31, "")
					assert.LessOrEqual(t, p.until(5*time.Minute), most)
				}
			})
		}
	}
}

func TestAcquisitionNeedsBoundedTimeDespiteManyRefusedWatches(t *testing.T) {
	var free, expired time.Duration
	for seed := range uint64(10) {
		m, p := crowded(t, func(p *modelPod) { p.unwatched, p.processes = true, 7*seed }, occupied)
		p.quiet(120, int(seed))
		m.free(31, "")
		free = max(free, p.until(5*time.Minute))

		_, p = crowded(t, func(p *modelPod) { p.unwatched, p.processes = true, 7*seed }, lease.Record{Holder: "z_u", Hold: "h", Duration: 30 * time.Second})
		expired = max(expired, p.until(5*time.Minute))
	}
	t.Logf("a free slot is acquired after %v at most, an expired slot after %v", free, expired)
	assert.LessOrEqual(t, free, 35*time.Second)
	assert.LessOrEqual(t, expired, 100*time.Second)
}

// The holder is dead, and no fault follows. The standby itself ends its silent watch, and reads the
// Lease again. No outage has kept the holder from its renewals, so the holder needs no head start.
func TestSilentWatchNeverDelaysTakeoverFromDeadHolder(t *testing.T) {
	for _, duration := range []time.Duration{30 * time.Second, 10 * time.Minute, 16 * time.Minute, 22 * time.Minute, 25*time.Minute + 30*time.Second, time.Hour} {
		t.Run(duration.String(), func(t *testing.T) {
			m := semaphore(t, 0, 1)
			m.store(m.leases[0], lease.Record{UID: "uid-0", Holder: "z_u", Hold: "h", Duration: duration})
			p := &modelPod{name: "a", self: self(t, "a", duration), names: []string{"slot-0"}}
			m.join(p)
			assert.LessOrEqual(t, p.until(2*time.Hour), duration+time.Second)
		})
	}
}

// A reader never writes the intent. So the reader reads the intent again when the Lease of a dead
// writer has expired.
func TestDeadWritersIntentBlocksReadersOneLeaseDuration(t *testing.T) {
	for _, duration := range []time.Duration{15 * time.Second, 30 * time.Second, 10 * time.Minute} {
		t.Run(duration.String(), func(t *testing.T) {
			m := semaphore(t, 0, 3)
			names := []string{"slot-0", "slot-1", "slot-2"}
			for _, l := range m.leases {
				m.store(l, lease.Record{UID: l.record.UID, Holder: "z_u", Hold: "h", Duration: duration})
			}
			p := &modelPod{model: m, name: "a", self: self(t, "a", duration), names: names, readers: 2, rate: 12, waiting: true}
			m.pods = append(m.pods, p)
			p.start()
			assert.LessOrEqual(t, p.until(2*time.Hour), duration+time.Second)
		})
	}
}

// self describes a pod with this name and lease duration.
func self(t testing.TB, name string, duration time.Duration) lease.Self {
	b, err := api.NewBudget(duration)
	require.NoError(t, err)
	return lease.Self{Identity: api.Identity(name, "u"), BootID: "boot-1", Budget: b}
}

func TestPreviousHolderRetriesRequestsWithinItsHeadStart(t *testing.T) {
	c := newClaim(Claim{Need: api.Need{Slots: []string{"lock.a"}}, Self: self(t, "a", api.DefaultLeaseDuration), Random: rand.NewPCG(1, 1)}, 0)
	s := c.need.slots[0]
	s.look.misses = 20
	worst := func() (d time.Duration) {
		for range 100 {
			d = max(d, s.backoff(0, 0))
		}
		return d
	}
	b := c.need.Self.Budget
	assert.Greater(t, worst(), b.Renew/2)
	assert.LessOrEqual(t, worst(), b.Renew)
	s.view.Read(1, lease.Record{UID: "u", Version: "1", Holder: c.need.Self.Identity})
	assert.LessOrEqual(t, worst()+b.RequestTimeout, b.Renew, "within the time that the standbys leave")
}
