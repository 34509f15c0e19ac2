// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// loseAcquisition starts a pod whose acquiring write is stored, but not answered. The function returns
// before the agent learns by a read that the pod holds.
func (w *world) loseAcquisition() *pod {
	w.free(theSlot)
	a := w.start("a")
	w.pass(time.Second)
	a.link.set(func(l *link) { l.lose = true })
	a.connect("s1")
	w.within(time.Second, "the write is stored", func() bool { return w.holder() == a.identity() })
	return a
}

func TestDeletedPodNeverStartsChildUnderFoundHold(t *testing.T) {
	simulate(t, func(w *world) {
		a := w.loseAcquisition()
		a.delete()
		w.within(10*time.Second, "the slot is released", func() bool { return w.holder() == "" })
		w.pass(time.Minute)
		assert.Empty(t, a.gates.given())
	})
}

// The leap may mean that the machine was paused, so that the Lease expired before the read.
func TestFoundHoldWaitsForRenewalAfterALeap(t *testing.T) {
	simulate(t, func(w *world) {
		a := w.loseAcquisition()
		a.link.set(func(l *link) { l.unwritten = &kube.StatusError{Code: 503} })
		a.leaps("s1", 1)
		w.pass(8 * time.Second)
		require.Equal(t, a.identity(), w.holder())
		assert.Empty(t, a.gates.given())
		a.link.set(func(l *link) { l.unwritten = nil })
		w.within(5*time.Second, "the child runs", func() bool { return a.running("s1") })
	})
}

// The check ahead of the release is fast enough, because the holder's application takes a moment to
// stop. A check after the release would delay the start.
func TestAskingPodChecksItsDeletionBeforeTheRelease(t *testing.T) {
	simulate(t, func(w *world) {
		_, b := w.rolling()
		b.link.set(func(l *link) { l.delay = 150 * time.Millisecond })
		b.connect("s3")
		w.within(time.Second, "the slot is released", func() bool { return w.holder() == "" || w.holder() == b.identity() })
		w.within(50*time.Millisecond, "the new child runs", func() bool { return b.running("s3") })
	})
}

// The pod neither reads nor watches the Lease of a slot that it has acquired, so the pod takes another
// slot.
func TestHolderReleasesSlotThatItAcquiredUnknowingly(t *testing.T) {
	simulate(t, func(w *world) {
		pool := []string{api.SemaphoreLease("pool", 0), api.SemaphoreLease("pool", 1)}
		semaphore := func(c *Config) { c.Slots, c.Any = pool, true }
		w.free(pool...)
		b := w.start("b", semaphore)
		b.connect("s2")
		w.within(time.Second, "another pod runs", func() bool { return b.running("s2") })
		taken, free := pool[0], pool[1]
		if w.server.lease(free).Holder != "" {
			taken, free = free, taken
		}
		a := w.start("a", semaphore)
		w.pass(time.Second)
		a.link.set(func(l *link) { l.lose, l.hidden, l.mute = true, free, true })
		a.connect("s1")
		w.within(time.Second, "the write is stored", func() bool { return w.server.lease(free).Holder == a.identity() })
		a.link.set(func(l *link) { l.mute = false })
		w.pass(a.agent.unit.self.Budget.RenewDeadline)
		b.gates.end("s2")
		w.within(time.Minute, "the pod runs under the other slot", func() bool { return a.running("s1") })
		require.Equal(t, a.identity(), w.server.lease(taken).Holder)
		a.link.set(func(l *link) { l.hidden = "" })
		w.within(slowest+time.Second, "the unknown slot is released", func() bool { return w.server.lease(free).Holder == "" })
		assert.True(t, a.running("s1"))
	})
}
