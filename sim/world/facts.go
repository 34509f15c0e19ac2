// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// checks judges the events of the world by the invariants. The struct keeps the facts of
// earlier events, and its methods compare later events with these facts.
type checks struct {
	*engine.Engine
	// Alive has the children that live, in the order of their beginning.
	Alive    []*Child
	works    []*work // the present activities of programs
	electors []*Elector
	// tokens has the last token of each slot.
	tokens map[string]token
	// Renewals has the last stored write of each hold, by slot and hold.
	Renewals map[string]renewal
	// released has the released holds, by slot and hold.
	released map[string]bool
	done     doneCheck
	// started has, by slot and hold, the starts of applications in pods without shims. Nothing in
	// such a pod can prove the death of its application.
	started map[string]start
	// acquired has the last acquisition of each slot.
	acquired map[string]acquisition
	// Ends has the ends of all children so far.
	Ends []Ending
	// apart has the identities of the pods whose slots belong to separate claims. Such slots have
	// no order.
	apart map[string]bool
	// rivals has, by identity, the pods whose first claim is a read-write lock.
	rivals map[string]*LocalPod
	// words is what the pods have said to their holders so far.
	words wordCheck
	// sharded has, by identity, the pods of the workload whose claim has shards.
	sharded map[string]*Pod
}

// SlotToken is a slot, and the token of its hold.
type SlotToken struct{ Slot, Token string }

type token struct {
	hold  string
	value int64
}

// renewal is a stored write that prolongs a hold.
type renewal struct {
	// At is the instant at which the server stored the write.
	At time.Duration
	// A supporter may take the slot after the time in the field "early", unless it has promised to wait.
	duration, early time.Duration
}

// free returns the instant from which a standby with the fastest clock may acquire the
// slot.
func (r renewal) free() time.Duration { return r.At + time.Duration(float64(r.duration)/(1+Skew)) }

// freeEarly returns the same for a supporter that has promised nothing.
func (r renewal) freeEarly() time.Duration { return r.At + time.Duration(float64(r.early)/(1+Skew)) }

// start describes how the kubelet started an application: in which pod, in which boot of the pod's
// node, and under which hold.
type start struct {
	pod        *Pod
	boot, hold string
}

type acquisition struct {
	// sent is the instant at which the agent sent the acquiring write.
	sent   time.Duration
	at     time.Duration
	holder string
	hold   string
}

// Ending is the end of a child.
type Ending struct {
	// At is the instant of the end.
	At time.Duration
	// Child is the child that has ended.
	Child *Child
}

func newChecks(e *engine.Engine) *checks {
	return &checks{
		Engine: e, tokens: map[string]token{}, Renewals: map[string]renewal{}, released: map[string]bool{}, done: newDoneCheck(e), started: map[string]start{},
		acquired: map[string]acquisition{}, apart: map[string]bool{}, rivals: map[string]*LocalPod{}, sharded: map[string]*Pod{},
		words: newWordCheck(),
	}
}

// Key returns the name of one hold of one slot.
func Key(slot, holder, hold string) string { return slot + " " + holder + " " + hold }

// Identity returns the identity of the pod.
func (p *Pod) Identity() string { return api.Identity(p.Name, p.uid) }

func (p *LocalPod) identity() string { return api.Identity(p.Name, p.uid) }

// Serves reports whether the child passes its readiness probe.
func (c *Child) Serves() bool {
	w, v := c.Pod().w, c.Pod().Behaviour
	return v.Serves(w.Now()-c.Began) && (!v.Probed || !c.Hung && !w.Down)
}

// Held returns the time for which the child has run under one agent process.
func (c *Child) Held() time.Duration {
	from := c.Began
	if a := c.Pod().Agent(); a != nil {
		from = max(from, a.began)
	}
	return c.Pod().w.Now() - from
}

// Preferred reports whether the template of the pod prefers the pod's zone.
func (p *Pod) Preferred() bool {
	return p.Behaviour.Prefers != "" && p.Behaviour.Prefers == p.Node.Zone
}

// Pod returns the pod of the child.
func (c *Child) Pod() *Pod { return c.Container.pod }

// Has reports whether the child runs under the slot.
func (c *Child) Has(slot string) bool {
	return slices.ContainsFunc(c.Slots, func(t SlotToken) bool { return t.Slot == slot })
}

// Holder returns the child that runs under the slot; nil if no child does.
func (l *checks) Holder(slot string) *Child {
	for _, c := range l.Alive {
		if c.Has(slot) {
			return c
		}
	}
	return nil
}

// Healthy reports whether the pod is able to compete for its slots.
func (p *Pod) Healthy() bool {
	return p.Object && !p.Stopping && !p.Gone && p.Node.Up && !p.Node.frozen && p.Node.online()
}
