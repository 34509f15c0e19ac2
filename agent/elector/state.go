// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package elector

import (
	"errors"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
)

// State is the state of a claim.
type State struct {
	Stage Stage
	// Hold is the number of the hold; while the claim waits, the number of its campaign. The field
	// "Resumed" reports that an earlier agent process began the hold.
	Hold    string
	Resumed bool
	// Leaps counts the leaps of the wall clock that the claim knows of.
	Leaps int
	// The fields below are zero unless the claim is held.

	// Writes reports that the hold is that of a writer.
	Writes bool
	// Tokens are the slots and their fencing tokens, in the order of acquisition.
	Tokens []api.Token
	// DrainAt is the instant at which the drain begins, unless a renewal succeeds before that.
	// Deadline is the deadline of grants. Each of these two fields is the earliest such instant
	// of all slots; [pace.Never] without slots.
	DrainAt, Deadline time.Duration
	// From is the earliest instant of all slots from which their deadline counts: at that instant the last
	// stored renewal was sent, or an earlier one.
	From time.Duration
	// Required are the supporters of the hold without whose promises Deadline comes earlier.
	Required []string
	// Lost is the lost slot that comes first in the order of acquisition; nil for none. The field
	// "Taken" reports that another pod may hold a lost slot.
	Lost  *Loss
	Taken bool
	// Paused names a paused slot of the hold, and its pause. If several slots are paused, Paused
	// prefers a slot whose pause stops the holder.
	Paused Pause
	// Closed names a slot of the hold whose stamp does not admit the number of shards, or the run,
	// of this pod; empty for none.
	Closed string
	// Yield is the yield that a person has requested of this hold; zero for none.
	Yield api.Yield
	// Confirmed counts the leaps of the wall clock after which a renewal of every slot was sent
	// and stored.
	Confirmed int
	// Acquired is the latest acquire time in the Leases of the hold, by the wall clock. Serving
	// and Leaving come from the Lease of the first slot. Serving is the time since which the
	// application serves. Leaving is the second word of [api.LeavingAnnotation], and Leave the
	// first; both are empty while the holder does not leave.
	Acquired, Serving time.Time
	Leaving, Leave    string
}

// ServesSince returns the time from which the holder serves, if the holder begins to serve now. The
// argument "wall" is the wall clock's present time. If somebody has set the wall clock back since the
// acquisition, the result is the time of the acquisition.
func (s State) ServesSince(wall time.Time) time.Time {
	if wall.Before(s.Acquired) {
		return s.Acquired
	}
	return wall
}

// Renewed reports whether a renewal of every slot has followed the last leap of the wall clock.
func (s State) Renewed() bool { return s.Confirmed >= s.Leaps }

// Loss names a slot that was lost, and the error that reported the loss.
type Loss struct {
	Slot string
	Err  error
}

// Pause names a slot that a person has paused; the zero value means none.
type Pause struct {
	Slot  string
	Pause api.Pause
}

func (c *claim) State() State {
	s := State{Stage: c.stage, Hold: c.campaign.hold, Resumed: c.campaign.resumed, Leaps: c.need.leaps}
	if c.stage != Held {
		return s
	}
	s.Deadline, s.DrainAt = c.campaign.slots.earliest((*lease.Hold).Deadline), c.campaign.slots.earliest((*lease.Hold).DrainAt)
	s.From = c.campaign.slots.earliest((*lease.Hold).From)
	s.Confirmed, s.Writes = c.need.leaps, c.campaign.writes
	if len(c.campaign.slots) == 0 {
		return s
	}
	first := c.campaign.slots[0].held.Record()
	s.Required = c.campaign.slots[0].held.Required()
	s.Serving, s.Leaving, s.Leave = first.Profile.Serving, first.Profile.Leaving, first.Profile.Leave
	for _, slot := range c.campaign.slots {
		s.Tokens = append(s.Tokens, api.Token{Slot: slot.name, Token: slot.held.Token()})
		s.Confirmed = min(s.Confirmed, slot.confirmed)
		s.learn(slot.name, slot.held.Record())
		if slot.unstamped(slot.held.Record()) {
			s.Closed = slot.name
		}
		if at := slot.held.Record().AcquireTime; at.After(s.Acquired) {
			s.Acquired = at
		}
		if slot.lost == nil {
			continue
		}
		if s.Lost == nil {
			s.Lost = &Loss{Slot: slot.name, Err: slot.lost}
		}
		s.Taken = s.Taken || slot.taken()
	}
	return s
}

// learn stores the pause or the yield that a person has written on the Lease of a held slot.
func (s *State) learn(slot string, r lease.Record) {
	if r.Paused != "" && (s.Paused.Slot == "" || r.Paused == api.PauseStop && s.Paused.Pause != api.PauseStop) {
		s.Paused = Pause{Slot: slot, Pause: r.Paused}
	}
	if r.Yield.Hold == s.Hold {
		s.Yield = r.Yield
	}
}

// taken reports whether another pod may have acquired a lost slot. If the Lease names another pod,
// or none, a child of another pod may already run. While the Lease still names this pod, no other
// pod's child can begin, unless the API server has shortened the duration of this pod's write.
func (s *slot) taken() bool {
	lost, ok := errors.AsType[*lease.LostError](s.lost)
	return !ok || lost.Holder != s.Self.Identity
}

// View is one slot as the claim sees it.
type View struct {
	Slot string
	// Record is the Lease as the claim last saw it. The field "Known" is false if the claim has not
	// read the Lease yet, or if the Lease is gone. Nothing changes the record.
	Record *lease.Record
	Known  bool
	// Mine reports that the Lease names this pod.
	Mine bool
	// AliveUntil is the instant until which the present holder counts as alive after its last renewal
	// that the claim has seen; zero for none.
	AliveUntil time.Duration
	// Shut reports that this claim may not acquire the slot even if its Lease is free. Either a
	// person has paused the slot, or its stamp does not admit the pod, or its shard is done.
	Shut bool
	// Heard is the instant at which the API server last told the pod about the Lease; zero for
	// none. A read and a watch event count. An answer that the Lease does not exist, or that
	// the pod may not read the Lease, also counts. Every other failed request does not count.
	Heard time.Duration
	// ExpiresAt is the instant at which the Lease expires, unless the claim sees a renewal
	// before that. FreeAt is the instant from which the slot is free; [pace.Never] while the
	// claim does not see the Lease.
	ExpiresAt, FreeAt time.Duration
}

// Views returns the slots as the claim sees them.
func (c *claim) Views() []View {
	views := make([]View, 0, len(c.need.slots))
	for _, s := range c.need.slots {
		r := s.view.Shown()
		free, sees := s.view.FreeAt(s.Self.Budget.Duration)
		if !sees {
			free = pace.Never
		}
		views = append(views, View{
			Slot: s.name, Record: r, Known: r.UID != "", Mine: s.Self.Mine(*r), Shut: s.shut(*r),
			Heard:     max(s.view.Heard(), s.deniedAt),
			ExpiresAt: s.view.ExpiresAt(s.Self.Budget.Duration), FreeAt: free, AliveUntil: s.view.AliveUntil(s.Self.Budget.Duration),
		})
	}
	return views
}

// Record returns the record that the slot's next write replaces.
func (c *claim) Record(name string) lease.Record {
	for _, s := range c.need.slots {
		if s.name == name {
			return s.record()
		}
	}
	return lease.Record{}
}

// OtherIsNext reports whether the Lease names another pod that is to hold next, and this pod does not
// hold the slot. Any goroutine may call OtherIsNext.
func (c *claim) OtherIsNext(r lease.Record) bool {
	self, next := c.need.Self.Identity, r.Next()
	return next != "" && next != self && r.Holder != self
}

// Holds returns the holds of this pod that the claim's Leases name.
func (c *claim) Holds() (all []string) {
	for _, s := range c.need.slots {
		if r := s.view.Shown(); s.Self.Mine(*r) {
			all = append(all, r.Hold)
		}
		if s.held != nil {
			all = append(all, s.held.ID())
		}
	}
	return all
}

// Named reports whether a Lease names the hold, or may name the hold after a write without an
// answer.
func (c *claim) Named(hold string) bool {
	return slices.ContainsFunc(c.need.slots, func(s *slot) bool {
		return s.record().Hold == hold || s.requests.mayName(hold)
	})
}

// Promise promises the holder of a claim with one slot that this pod will not take the slot from the hold for the
// given time from now on. The result is false, and nothing is promised, if the claim sees another hold, or if an
// acquiring write of this pod may still be stored.
func (c *claim) Promise(now time.Duration, hold string, lasts time.Duration) bool {
	s := c.need.slots[0]
	r := s.view.Shown()
	if c.stage != Waiting || s.held != nil || s.requests.any() || s.requests.unread != "" || s.requests.unanswered.Record.Version == r.Version {
		return false
	}
	return s.view.Promise(now, hold, lasts)
}

// Promised remembers that a supporter has promised, after the instant "asked", to leave the hold alone.
func (c *claim) Promised(hold, id string, asked time.Duration) {
	if c.stage == Held && c.campaign.hold == hold && len(c.campaign.slots) == 1 {
		c.campaign.slots[0].held.Promised(id, asked)
	}
}

// Lost reports whether the claim sees that a child's hold has ended, because a Lease of the
// child's slots no longer names that hold. If the result "taken" is true, another pod may hold
// that Lease.
func (c *claim) Lost(child Child) (lost, taken bool) { return c.need.lost(child) }
