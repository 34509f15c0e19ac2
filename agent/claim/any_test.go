// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package claim

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
		p := &modelPod{model: m, name: name, names: names, any: true, self: known(name), rate: 12, waiting: true, quick: true}
		m.pods = append(m.pods, p)
		p.start()
	}
	m.settle()
	m.advance(time.Second)
	return m
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

func TestSemaphoreRunsAsManyPodsAsSlots(t *testing.T) {
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

func TestStandbyReplacesACutOffSemaphoreHolder(t *testing.T) {
	m := semaphore(t, 5, 3)
	lost := m.pods[strings.IndexByte("abcde", m.running()[0])]
	lost.link = cut
	m.advance(20 * time.Second)
	assert.NotContains(t, m.running(), lost.name, "stopped before its slot is taken")
	m.advance(30 * time.Second)
	assert.Len(t, m.running(), 3)
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

	// The API server stores the next acquiring write, and its answer is lost.
	p.waiting, p.link = true, deaf
	p.step()
	m.advance(1500 * time.Millisecond) // the head start of the other pods
	require.Equal(t, 1, p.held())
	p.link = up
	m.advance(10 * time.Second)
	assert.Equal(t, "a", m.running())
	assert.Equal(t, 1, p.held(), "the pod holds one slot, and has released the other")
}

func TestNewAgentResumesOnlyAReportedChildsHold(t *testing.T) {
	for name, heard := range map[string]bool{"heard": true, "not heard": false} {
		t.Run(name, func(t *testing.T) {
			m := semaphore(t, 1, 3)
			p := m.pods[0]
			hold := p.child.hold
			m.advance(7 * time.Second)
			p.start()
			p.heard, p.fresh = heard, true
			p.step()
			m.settle()
			m.advance(10 * time.Second)
			if heard {
				assert.Equal(t, hold, p.hold)
			} else {
				assert.Empty(t, p.hold, "a child of the earlier process may be alive under any slot")
			}
			assert.Equal(t, 1, p.held())
		})
	}
}

// An earlier process's hold may have expired without proof that its child is dead. A grant of a
// new hold ends the doubts of the pod's shims. After that, the claim could wrongly take the
// expired hold for a proven one.
func TestClaimDoesNotReleaseAnExpiredHold(t *testing.T) {
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
