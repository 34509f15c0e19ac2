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
		assert.Greater(t, n.pods["b"].sent("put")+n.pods["c"].sent("put"), before+4, "both have tried to write")
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

// A dead holder's supporters must be able to take the slot, because the others wait for the whole Lease.
func TestOnlyPodsThatCanTakeTheSlotSupportItsHolder(t *testing.T) {
	for name, unable := range map[string]func(n *peers, p *pod){
		"they cannot start the application": func(*peers, *pod) {},
		"they do not reach the API server": func(n *peers, p *pod) {
			p.connect("s1")
			n.within(time.Minute, "it supports the holder", func() bool { return n.list().Has(api.SupporterID(p.identity(), p.agent.state.self.Key)) })
			p.link.set(func(l *link) { l.cut = true })
		},
	} {
		t.Run(name, simulated(func(t *testing.T, w *world) {
			n := supported(w, "a")
			for _, name := range []string{"b", "c"} {
				unable(n, n.start(name))
			}
			w.pass(time.Minute)
			d := n.start("d")
			d.connect("s1")
			w.pass(2 * time.Minute)
			n.pods["a"].kill()
			w.within(37*time.Second, "d runs", func() bool { return d.running("s1") })
		}))
	}
}
