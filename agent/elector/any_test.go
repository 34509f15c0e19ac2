// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package elector

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/lease"
)

// semaphore returns a model with pods that each need any one of the slots.
func semaphore(t *testing.T, pods, slots int) *model {
	m := &model{script: &script{}, began: time.Now(), traced: true}
	t.Cleanup(func() {
		if assert.Empty(t, m.broken); t.Failed() {
			t.Log(strings.Join(m.trace, "\n"))
		}
	})
	var names []string
	for i := range slots {
		l := &modelLease{}
		names = append(names, "slot-"+strconv.Itoa(i))
		m.leases = append(m.leases, l)
		m.store(l, lease.Record{UID: "uid-" + strconv.Itoa(i)})
	}
	known := identities(t)
	for i := range pods {
		name := string(rune('a' + i))
		m.join(&modelPod{name: name, names: names, self: known(name)})
	}
	m.settle()
	m.advance(time.Second)
	return m
}

// join adds a pod that needs any one of its slots, and starts the pod's agent.
func (m *model) join(p *modelPod) {
	p.model, p.any, p.rate, p.waiting, p.quick = m, true, 12, true, true
	m.pods = append(m.pods, p)
	p.start()
}

// running returns the names of the pods that have a child.
func (m *model) running() (names string) {
	for _, p := range m.pods {
		if p.child != nil {
			names += p.name
		}
	}
	return names
}

// held returns the number of Leases that name the pod.
func (p *modelPod) held() (n int) {
	for _, l := range p.model.leases {
		if l.record.Holder == p.self.Identity {
			n++
		}
	}
	return n
}

func TestSemaphoreLetsOnePodRunPerSlot(t *testing.T) {
	m := semaphore(t, 5, 3)
	for range 20 {
		require.Len(t, m.running(), 3)
		for _, p := range m.pods {
			if p.child != nil {
				p.yield()
				p.step()
				m.settle()
				break
			}
		}
		m.advance(2 * time.Second)
	}
}

func TestSemaphorePodReleasesASlotItAcquiredUnknowingly(t *testing.T) {
	m := semaphore(t, 1, 2)
	p := m.pods[0]
	p.waiting = false
	p.end()
	p.step()
	m.settle()
	m.advance(time.Second)
	require.Zero(t, p.held())

	// The API server stores the next acquiring write, but the answer to that write is lost.
	p.waiting, p.link = true, deaf
	p.step()
	// The pod begins to acquire a slot only after the head start of the other pods; see [Parting].
	m.advance(1500 * time.Millisecond)
	require.Equal(t, 1, p.held())
	p.link = up
	m.advance(10 * time.Second)
	assert.Equal(t, "a", m.running())
	assert.Equal(t, 1, p.held(), "the pod holds one slot, and has released the other")
}

// An earlier process's hold may have expired without proof that the hold's child is dead. A grant
// of a new hold ends the doubts of the pod's shims. After that, the claim could wrongly take the
// expired hold for a proven one.
func TestNewAgentProcessNeverReleasesAnUnprovenHold(t *testing.T) {
	waitedOut := 0
	for seed := range uint64(10) {
		m := semaphore(t, 1, 3)
		p := m.pods[0]
		p.processes += seed
		before, slot := p.child.hold, p.lease(p.child.tokens[0].Slot)
		p.start()
		p.heard, p.fresh = false, true
		m.advance(50 * time.Second)
		require.NotNil(t, p.child)
		require.NotEqual(t, before, p.child.hold)
		p.heard = true
		m.advance(10 * time.Second)
		if slot.record.Hold == p.child.hold {
			continue
		}
		waitedOut++
		assert.Equal(t, before, slot.record.Hold)
		p.yield()
		p.step()
		m.settle()
		m.advance(2 * time.Second)
		assert.Equal(t, "a", m.running(), "the pod waits for no hold twice")
	}
	assert.NotZero(t, waitedOut)
}

// occupied is the record of a slot with a living holder.
var occupied = lease.Record{Holder: "z_u", Hold: "h", Duration: time.Hour}

// crowded returns a model with a pod that needs any one of 32 slots. The function "fault" sets
// the faults of that pod. The argument "last" is the record of the last slot. Living holders
// occupy all other slots.
func crowded(t *testing.T, fault func(p *modelPod), last lease.Record) (*model, *modelPod) {
	m := semaphore(t, 0, 32)
	p := &modelPod{name: "a", self: identities(t)("a")}
	for i, l := range m.leases {
		p.names = append(p.names, "slot-"+strconv.Itoa(i))
		r := occupied
		if i == len(m.leases)-1 {
			r = last
		}
		r.UID = l.record.UID
		m.store(l, r)
	}
	fault(p)
	m.join(p)
	return m, p
}

// sentWithin counts the requests that the pod has sent in the time d before now.
func (p *modelPod) sentWithin(d time.Duration) (n int) {
	for _, instants := range p.sent {
		for _, at := range instants {
			if at > p.local()-d {
				n++
			}
		}
	}
	return n
}

// faults are the ways in which the API server fails for the pod of [crowded].
var faults = map[string]func(p *modelPod){
	"refused":         func(p *modelPod) { p.link = refused },
	"cut off":         func(p *modelPod) { p.link = cut },
	"no answers":      func(p *modelPod) { p.link = deaf },
	"watches refused": func(p *modelPod) { p.unwatched = true },
}

func TestManySlotsCauseFewRequestsDuringFaults(t *testing.T) {
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			m, p := crowded(t, fault, occupied)
			for range 5 * 60 {
				m.advance(time.Second)
				m.settle()
			}
			sent := p.sentWithin(time.Minute)
			most := 24 // a pod with one slot sends a read each 2.5 s to 5 s, so at most 24 in a minute
			if p.unwatched {
				most = PerMinute + 1
			}
			t.Logf("%d requests for all slots in a minute", sent)
			assert.Positive(t, sent)
			assert.LessOrEqual(t, sent, most)
		})
	}
}

// While enroll creates many Leases, each pod of the claim once read all missing Leases again and
// again. With 80 pods, these reads slowed enroll down.
func TestManyMissingLeasesCauseFewRequests(t *testing.T) {
	m, p := crowded(t, func(p *modelPod) {}, occupied)
	for _, l := range m.leases[:16] {
		l.exists = false
		for _, of := range p.looks {
			if p.lease(of.action.Slot) == l && of.watching {
				of.action.Gone(p.local())
			}
		}
	}
	p.step()
	for range 5 * 60 {
		m.advance(time.Second)
		m.settle()
	}
	sent := p.sentWithin(time.Minute)
	assert.Positive(t, sent)
	assert.LessOrEqual(t, sent, 24, "as many as those of a pod with one missing Lease")

	for i, l := range m.leases[:16] {
		l.exists = true
		m.free(i, "")
	}
	assert.LessOrEqual(t, p.until(time.Minute), 10*time.Second)
}

// Each read at once needs a connection of its own. On a test cluster, 80 pods read 64 Leases each at
// once. The reads timed out during the TLS handshakes, and the pods repeated all reads.
func TestPodReadsFewLeasesAtOnce(t *testing.T) {
	m, p := crowded(t, func(p *modelPod) { p.link = cut }, occupied)
	m.advance(time.Millisecond)
	p.link = up
	most := 0
	for more := true; more; more = p.deliver() {
		reads := 0
		for _, l := range p.looks {
			if !l.watching {
				reads++
			}
		}
		most = max(most, reads)
	}
	assert.Len(t, p.looks, 32)
	assert.Equal(t, mostReads, most)
}

func TestPodAcquiresTheOnlyFreeSlotOfMany(t *testing.T) {
	for name, fault := range faults {
		for state, last := range map[string]lease.Record{
			"free":    {},
			"expired": {Holder: "z_u", Hold: "h", Duration: 30 * time.Second},
		} {
			t.Run(name+", "+state, func(t *testing.T) {
				m, p := crowded(t, fault, last)
				for range 5 * 60 {
					m.advance(time.Second)
					m.settle()
				}
				if !p.unwatched {
					require.Empty(t, m.running())
					p.link = up
					m.advance(90 * time.Second)
					m.settle()
				}
				assert.Equal(t, "a", m.running())
			})
		}
	}
}

func TestHolderEndsNeedlessWatchesOneByOne(t *testing.T) {
	m, p := crowded(t, func(*modelPod) {}, occupied)
	m.advance(time.Millisecond)
	m.settle()
	require.Len(t, p.looks, 32)
	m.free(0, "")
	for m.running() == "" {
		m.advance(apart / 5)
		m.settle()
	}
	require.GreaterOrEqual(t, len(p.looks), 30, "the watches outlast the start of the child")
	for open := len(p.looks); open > 1; open = len(p.looks) {
		m.advance(apart)
		m.settle()
		require.Equal(t, open-1, len(p.looks))
	}
}
