// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// checks judges the events of the world by the invariants. The struct keeps the facts of
// earlier events, and its methods compare later events with these facts.
type checks struct {
	*engine.Engine
	alive    []*child
	works    []*work // the present activities of programs
	electors []*elector
	// tokens has the last token of each slot.
	tokens map[string]token
	// renewals has the last stored write of each hold, by slot and hold.
	renewals map[string]renewal
	// released has the released holds, by slot and hold.
	released map[string]bool
	done     doneCheck
	// started has, by slot and hold, the starts of applications in pods without shims. Nothing in
	// such a pod can prove the death of its application.
	started map[string]start
	// acquired has the last acquisition of each slot.
	acquired map[string]acquisition
	ends     []ending
	// apart has the identities of the pods whose slots belong to separate claims, so that the
	// slots have no order.
	apart map[string]bool
	// rivals has, by identity, the pods whose first claim is a read-write lock.
	rivals map[string]*localPod
	// sharded has, by identity, the pods of the workload whose claim has shards.
	sharded map[string]*pod
}

type token struct {
	hold  string
	value int64
}

type renewal struct {
	at       time.Duration
	duration time.Duration
}

// free returns the instant from which a standby with the fastest clock may acquire the
// slot.
func (r renewal) free() time.Duration { return r.at + time.Duration(float64(r.duration)/(1+skew)) }

// start describes how the kubelet started an application: in which pod, in which boot of the pod's
// node, and under which hold.
type start struct {
	pod        *pod
	boot, hold string
}

type acquisition struct {
	// sent is the instant at which the agent sent the write.
	sent   time.Duration
	at     time.Duration
	holder string
	hold   string
}

type ending struct {
	at    time.Duration
	child *child
}

func newChecks(e *engine.Engine) *checks {
	return &checks{
		Engine: e, tokens: map[string]token{}, renewals: map[string]renewal{}, released: map[string]bool{}, done: newDoneCheck(e), started: map[string]start{},
		acquired: map[string]acquisition{}, apart: map[string]bool{}, rivals: map[string]*localPod{}, sharded: map[string]*pod{},
	}
}

// key returns the name of one hold of one slot.
func key(slot, holder, hold string) string { return slot + " " + holder + " " + hold }

func (c *child) pod() *pod { return c.container.pod }

// has reports whether the child runs under the slot.
func (c *child) has(slot string) bool {
	return slices.ContainsFunc(c.slots, func(t gate.SlotToken) bool { return t.Slot == slot })
}

// holder returns the child that runs under the slot; nil if no child does.
func (l *checks) holder(slot string) *child {
	for _, c := range l.alive {
		if c.has(slot) {
			return c
		}
	}
	return nil
}
