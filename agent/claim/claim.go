// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"math"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/lease"
)

// Config says what is claimed, and by which pod.
type Config struct {
	// Slots are the names of the Leases, in the order in which they are acquired.
	Slots []string
	// Any: one of the slots is enough, whichever it is. Otherwise all are needed.
	Any bool
	// Self is the pod.
	Self lease.Self
	// OwnKernel: the pod may run in a virtual machine of its own. Another boot id is
	// then no proof that the children of the earlier boot are dead.
	OwnKernel bool
	// Random is the source of all that is random.
	Random interface{ Uint64() uint64 }
}

// Stage says where a claim stands.
type Stage int

const (
	// Waiting: the claim is a standby's, or its campaign is under way.
	Waiting Stage = iota
	// Held: every slot that the claim needs is held.
	Held
	// Done: a stopped claim has nothing left to release.
	Done
)

// Claim decides about the Leases of one claim.
type Claim struct {
	config   Config
	slots    []*slot
	stage    Stage
	campaign campaign
	handback handback
	// began is when this agent process began.
	began time.Duration
	// leaps counts the leaps of the wall clock that the claim was told of.
	leaps int
	// stopping: the claim ends. leaveBy is the instant at which its last slots have
	// expired: then there is nothing left to release.
	stopping bool
	leaveBy  time.Duration
}

// New returns the claim of an agent process that begins now, and has seen nothing yet.
func New(c Config, now time.Duration) *Claim {
	claim := &Claim{config: c, began: now}
	for _, name := range c.Slots {
		claim.slots = append(claim.slots, &slot{name: name})
	}
	return claim
}

// Facts are what a decision depends on, beside the Leases.
type Facts struct {
	// Wall is the wall clock's time, which each write carries for people.
	Wall time.Time
	// Compete: a shim waits for a grant, and the pod is to stay.
	Compete bool
	// Alive: a child of some hold is alive.
	Alive bool
	// Children are the children whose hold this claim may resume.
	Children []Child
	// Proven reports whether no child of the hold can be alive.
	Proven func(hold string) bool
	// Notes are what the next write tells the standbys.
	Notes lease.Notes
	// Renew: the slots of a held claim are renewed. Guard: their watches begin anew
	// where they have ended.
	Renew, Guard bool
}

// Child is a connected child of a hold, with the tokens of its grant.
type Child struct {
	Hold   string
	Tokens []Token
}

// Token is the fencing token of one slot.
type Token struct{ Slot, Token string }

// Kind says what an action is.
type Kind int

const (
	// Look reads the Lease, unless From says where to go on, and watches it.
	Look Kind = iota + 1
	// EndLook ends the slot's look.
	EndLook
	// Read reads the Lease consistently.
	Read
	// Acquire, Renew and Release write Record.
	Acquire
	Renew
	Release
	// StandBack tells that the campaign gives its slots back, because Slot cannot be
	// had. It asks for no request.
	StandBack
)

// Action is one thing that the caller is to do. The answer goes with it.
type Action struct {
	Kind Kind
	Slot string
	// Record is what a write stores, over the version that it names.
	Record lease.Record
	// From is the version from which a look goes on; empty for a look that reads.
	From string
	// Hold is the hold that a release, or a campaign that stands back, gives up.
	Hold string
	// Resumed: the hold of an acquiring write was begun by an earlier agent process.
	Resumed bool

	slot *slot
	// look numbers a look of the slot.
	look int
	// held is the hold of a renewal, or of a read; attempt is the write itself.
	held    *lease.Hold
	attempt lease.Attempt
	// campaign is the one of an acquiring write.
	campaign campaign
	// leaps counts the leaps that the claim knew when it sent the write.
	leaps int
}

// Never is the instant that does not come.
const Never = time.Duration(math.MaxInt64)

// plan collects the actions of one decision, and the instant of the next one.
type plan struct {
	now     time.Duration
	facts   Facts
	actions []Action
	wake    time.Duration
}

func (p *plan) add(a Action) {
	a.Slot = a.slot.name
	p.actions = append(p.actions, a)
}

// wakeAt asks for another decision at that instant.
func (p *plan) wakeAt(at time.Duration) { p.wake = min(p.wake, at) }

// Next returns what to do now, and the instant of the next decision if no answer comes
// before it.
func (c *Claim) Next(now time.Duration, f Facts) (actions []Action, wake time.Duration) {
	p := &plan{now: now, facts: f, wake: Never}
	switch c.stage {
	case Waiting:
		c.wait(p)
	case Held:
		c.keep(p)
	case Done:
	}
	return append(c.endedLooks(), p.actions...), p.wake
}

// wait decides for a standby.
func (c *Claim) wait(p *plan) {
	c.settleHandback(p)
	if resumed, ok := c.resumable(p.facts); ok {
		c.campaign, c.handback = resumed, handback{}
		c.run(p)
	} else if next, ok := c.nextCampaign(p); ok {
		c.campaign = next
		c.run(p)
	} else {
		c.giveBack(p, c.slots)
	}
	switch {
	case c.stage == Held:
	case c.finished(p):
		c.stage = Done
	default:
		c.lookAll(p, c.slots)
	}
}

// Stop ends the claim: it begins no hold any more, and releases what is proven.
func (c *Claim) Stop(now time.Duration) {
	c.stopping = true
	c.leaveBy = max(c.leaveBy, now+c.config.Self.Budget.Duration)
}

// finished reports whether a stopped claim has nothing left to do: no child is left, and
// every slot that can be released is, or has expired by now.
func (c *Claim) finished(p *plan) bool {
	if !c.stopping || p.facts.Alive {
		return false
	}
	if p.now >= c.leaveBy {
		return true
	}
	p.wakeAt(c.leaveBy)
	for _, s := range c.slots {
		if len(s.writing) > 0 {
			return false
		}
	}
	return !c.mineProven(p.facts)
}

// LetGo ends a hold. The claim, a standby's again, releases the slots if the caller has
// proof that every child is dead. With giveBack it competes for none before all of them
// are released, and then leaves the others the head start.
func (c *Claim) LetGo(now time.Duration, giveBack bool, headStart time.Duration) {
	if giveBack {
		c.handback = handback{due: true, headStart: headStart}
	}
	for _, s := range c.slots {
		if s.held != nil {
			c.leaveBy = max(c.leaveBy, s.held.ExpiresAt())
			s.drop(now)
		}
	}
	c.campaign, c.stage = campaign{}, Waiting
}

// Leapt notes that the wall clock leapt, and returns how many leaps there were. The
// claim renews at once: a pause of the machine may have outlasted the Lease.
func (c *Claim) Leapt(now time.Duration) int {
	c.leaps++
	for _, s := range c.slots {
		// Each shim of the pod reports the same leap: one attempt is for all.
		if s.leaptAt == 0 || now >= s.leaptAt+c.config.Self.Budget.Retry {
			s.leaptAt, s.tryAt = now, now
		}
	}
	return c.leaps
}

// jitter returns a duration between half of d and d, so that agents that failed
// together do not return together.
func (c *Claim) jitter(d time.Duration) time.Duration {
	return d/2 + time.Duration(c.config.Random.Uint64()%uint64(d/2+1)) //nolint:gosec // d is positive
}
