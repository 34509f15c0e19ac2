// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/api"
)

// The holder waits for an answer only for a moment, and a pod seldom looks whether its old wish is still there.
func TestSupporterThatTriesToWriteTakesNoWordBack(t *testing.T) {
	simulate(t, func(w *world) {
		n := supported(w, "a", "b", "c")
		words := append(w.wishes("b_u", "d_u"), api.Word{Say: api.Takes, Identity: "c_u", To: w.holdID() + ".1"})
		w.speak(words...)
		before := n.pods["b"].sent("put") + n.pods["c"].sent("put")
		n.pods["a"].link.set(func(l *link) { l.broken = theSlot })
		w.pass(13 * time.Second)
		n.pods["a"].link.set(func(l *link) { l.broken = "" })
		w.pass(40 * time.Second)
		assert.Greater(t, n.pods["b"].sent("put")+n.pods["c"].sent("put"), before+10, "both have tried to write")
		assert.Equal(t, words, w.words())
	})
}

// The agent does not know whether a child without a connection lives, so the hold is to expire as soon as without
// supporters.
func TestHoldThatNeedsNoRenewalWantsNoPromise(t *testing.T) {
	simulate(t, func(w *world) {
		n := supported(w, "a", "b")
		w.pass(time.Minute)
		a, b := n.pods["a"], n.pods["b"]
		a.gates.report("s1", func(r *gate.Report) { r.Connected = false })
		took := w.within(90*time.Second, "b runs", func() bool { return b.running("s1") })
		assert.Less(t, took, 37*time.Second)
	})
}
