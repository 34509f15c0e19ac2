// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package elector

import (
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/api"
)

// Facts are the inputs of a decision, apart from the Leases.
type Facts struct {
	// Wall is the wall clock's time, which each write carries for people.
	Wall time.Time
	// Compete reports that a shim waits for a grant, and that the pod may begin a hold.
	Compete bool
	// Writes reports that the pod competes as the writer of a read-write lock. If Writes is
	// false, the pod competes as a reader.
	Writes bool
	// Lingers reports that a stopped claim continues to look at its slots, because the pod
	// still forwards to their holder.
	Lingers bool
	// Alive reports that a connected shim has, or may have, a child, under any hold.
	Alive bool
	// Children are the children whose hold this claim may resume.
	Children []Child
	// Outcomes has, by its number, the outcome of each hold of this pod that [Elector.Holds] names.
	Outcomes map[string]Outcome
	// Profile is that which the next write records in the Lease.
	Profile lease.Profile
	// TakeFrom is the earliest instant at which the pod may acquire a free slot; zero permits any
	// instant.
	TakeFrom time.Duration
	// Rollout is the value of [api.RolloutAnnotation] that each renewal stores. If Rollout is nil, a
	// renewal keeps the value in the Lease. The other writes always keep the value: their value
	// depends on the write itself, so the caller may change it in the action.
	Rollout *string
	// Settled reports that the pod needs no slot any more. From then on the claim looks only at
	// slots that it must release.
	Settled bool
	// Renew requests renewals of the slots of a held claim. The field "Guard" requests a new
	// watch of each slot whose watch has ended.
	Renew, Guard bool
	// Supporters are the IDs of the standbys that are to support this pod ([api.Supporters]). A renewal writes
	// them.
	Supporters []string
	// RenewedSince requests a renewal at once, unless the last stored one was sent at this instant or later.
	RenewedSince time.Duration
}

// Outcome is what the pod knows about the end of one of its holds.
type Outcome struct {
	// Proven reports that no child of the hold can be alive.
	Proven bool
	// Done is the key whose work has succeeded under the hold, and Failed the key whose work has failed;
	// empty for none. The release of the hold adds Done to the done keys of the Lease, and counts the
	// failure of Failed.
	Done, Failed string
}

// runs reports whether one of the children in Children has a token of the slot.
func (f Facts) runs(slot string) bool {
	return slices.ContainsFunc(f.Children, func(c Child) bool {
		return slices.ContainsFunc(c.Tokens, func(t api.Token) bool { return t.Slot == slot })
	})
}

// Child is a child whose hold the claim may resume, with the tokens of the child's grant.
type Child struct {
	Hold   string
	Tokens []api.Token
}

// Kind says what an action does.
type Kind int

const (
	// Look reads the Lease, and then watches it. If the action's From is set, Look only watches,
	// from that version.
	Look Kind = iota + 1
	// EndLook ends the slot's look.
	EndLook
	// Read reads the Lease consistently: the answer is not older than the request.
	Read
	// Acquire, Renew and Release write the action's Record.
	Acquire
	Renew
	Release
	// StandBack tells the caller, for its log, that the campaign gives its slots back, because the
	// action's Slot cannot be acquired. The caller sends no request for this action.
	StandBack
)

// Action is one step for the [Elector], which passes the API server's answer to a read or a write back to
// the claim, together with the action.
type Action struct {
	Kind Kind
	Slot string
	// Record is the record that a write stores. The write replaces the version that
	// Record names.
	Record lease.Record
	// From is the version from which a look continues its watch; empty for a look that first
	// reads.
	From string
	// Hold is the number of a hold. Release ends this hold. StandBack reports that the campaign for
	// this hold gives its slots back.
	Hold string
	// Resumed reports that an acquiring write continues a hold that an earlier agent process
	// began.
	Resumed bool

	slot *slot
	// look is the number of the look that the action begins.
	look int
	// held is the hold for which a renewal or a read is sent. The field "attempt" has the
	// record that an acquiring write or a renewal stores. For a read, that field has the
	// last record that the claim knew before the read.
	held    *lease.Hold
	attempt lease.Attempt
	// campaign is the campaign that an acquiring write belongs to.
	campaign campaign
	// leaps is the number of leaps that the claim knew when the claim added this action to the
	// plan.
	leaps int
}

// Sent returns the instant from which the deadline counts after an acquiring write or a renewal;
// zero for any other action.
func (a Action) Sent() time.Duration { return a.attempt.Sent }

// plan collects the actions of one decision, and the instant of the next decision.
type plan struct {
	now     time.Duration
	facts   Facts
	actions []Action
	wake    time.Duration
	// successor is the identity of the pod that a release names; empty for none. The field
	// "releases" reports that a slot of the last hold is not released yet.
	successor string
	releases  bool
}

func (p *plan) add(a Action) {
	a.Slot = a.slot.name
	p.actions = append(p.actions, a)
}

// wakeAt makes the next decision come at the given instant, or earlier.
func (p *plan) wakeAt(at time.Duration) { p.wake = min(p.wake, at) }

// Answer is the API server's answer to a request, or the error of that request.
type Answer struct {
	// Record is the Lease in the answer, if there is no error.
	Record lease.Record
	Err    error
	// Conflict reports that the Lease no longer has the version that the write was to replace.
	// The field "Missing" reports that the API server has no such Lease. The field "Forbidden"
	// reports that the pod has no right to send this request.
	Conflict, Missing, Forbidden bool
	// RetryAfter is the delay that the API server demands before the next request; zero for
	// none.
	RetryAfter time.Duration
}
