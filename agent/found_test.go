// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/metaparticle-io/metaparticle/agent/kube"
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
