// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/lease"
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

func TestSuccessorAcquiresReleasedSlotDespiteEndedWatch(t *testing.T) {
	for name, l := range failures {
		t.Run(name, func(t *testing.T) {
			for seed := range 10 {
				m, p := crowded(t, func(p *modelPod) { p.processes = 7 * uint64(seed) }, occupied)
				other := &modelPod{name: "b", self: identities(t)("b"), names: p.names, processes: 11 * uint64(seed)}
				m.join(other)
				p.quiet(10, 0)
				p.spoil(2, l)
				p.quiet(90, seed)
				p.endWatch("slot-31", nil)
				p.step()
				m.free(31, p.self.Identity)
				p.until(20 * time.Second)
				assert.Equal(t, "a", m.running())
			}
		})
	}
}

func TestPodNoticesUnansweredAcquisitionDespiteUnreadableOtherLeases(t *testing.T) {
	for seed := range 10 {
		m, p := crowded(t, func(p *modelPod) { p.processes = 7 * uint64(seed) }, occupied)
		p.quiet(10, 0)
		p.spoil(8, refused)
		p.quiet(90, seed)
		m.free(31, "")
		for _, l := range p.looks { // the event of the free slot arrives
			if l.action.Slot == "slot-31" {
				for p.see(l) {
				}
			}
		}
		p.link = deaf // the write arrives, and its answer is lost
		p.step()
		m.advance(time.Millisecond)
		m.settle()
		m.advance(p.self.Budget.RequestTimeout)
		require.Equal(t, 1, p.held())
		p.link = up
		assert.LessOrEqual(t, p.until(5*time.Minute), 200*time.Millisecond)
	}
}

func TestStandbyNeverRepeatsAPendingRead(t *testing.T) {
	m, p := crowded(t, func(p *modelPod) {}, occupied)
	for _, l := range m.leases[:31] {
		r := l.record
		r.Paused, r.Holder, r.Hold = "hold", "", ""
		m.store(l, r)
	}
	m.settle()
	p.quiet(int(longestSilence/time.Second)-3, 0)
	p.link = cut
	p.until(3 * time.Second)
	assert.LessOrEqual(t, p.sentWithin(3*time.Second), 32, "a read of each slot")
	p.endWatch("slot-31", errCut)
	p.step()
	m.free(31, "")
	p.link = up
	assert.LessOrEqual(t, p.until(2*time.Minute), 10*time.Second)
}

// Several reads are under way when the fault makes all of them fail. Together these failed reads
// count as a single miss, so the delay after them is short.
func TestShortFaultOfAllWatchesBarelyDelaysAcquisition(t *testing.T) {
	for seed := range 10 {
		m, p := crowded(t, func(p *modelPod) { p.processes = 7 * uint64(seed) }, occupied)
		p.quiet(60, 0)
		p.link = cut
		p.spoil(32, up)
		p.until(3 * time.Second)
		m.free(31, "")
		p.link = up
		m.settle()
		assert.LessOrEqual(t, p.until(5*time.Minute), time.Second)
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
