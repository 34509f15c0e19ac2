// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"net/http"
	"reflect"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/instant"
	"github.com/metaparticle-io/metaparticle/api"
)

// claimState is the answer about a claim.
type claimState struct {
	Claim string `json:"claim"`
	// Held reports that a program of this pod holds.
	Held  bool        `json:"held"`
	Slots []slotState `json:"slots"`
}

// slotState tells which pod has a slot. All fields but the first are empty for a free slot.
type slotState struct {
	Slot         string     `json:"slot"`
	Holder       string     `json:"holder,omitempty"`
	Address      string     `json:"address,omitempty"`
	FencingToken string     `json:"fencingToken,omitempty"`
	Since        *time.Time `json:"since,omitempty"`
}

// getState answers what the agent sees of a claim: once, or with each change (?watch=true).
func getState(k calls, w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 4*k.self.Budget.RequestTimeout)
	defer cancel()
	s, changed, ok := k.seen(ctx)
	switch {
	case !ok:
		unavailableProblem.write(w)
	case r.URL.Query().Get("watch") != "true":
		reply(w, http.StatusOK, s)
	default:
		k.followState(w, r, s, changed)
	}
}

// followState writes a line for the state, and for each later state that differs.
func (k calls) followState(w http.ResponseWriter, r *http.Request, s claimState, changed <-chan struct{}) {
	lines := newStream(w)
	again := time.NewTicker(interest / 2) // the agent's watch ends without interest
	defer again.Stop()
	for told := (claimState{}); ; {
		if !reflect.DeepEqual(s, told) {
			if lines.line(s) != nil {
				return
			}
			told = s
		}
		select {
		case <-changed:
		case <-again.C:
		case <-r.Context().Done():
			return
		case <-k.ended:
			return
		}
		next, later, seen := claimState{}, (<-chan struct{})(nil), false
		if k.call(r.Context(), func(now time.Duration) { next, seen, later = k.look(now) }) != nil {
			return
		}
		if changed = later; seen {
			s = next
		}
	}
}

// seen returns the state of the claim as soon as the agent sees each Lease.
func (k calls) seen(ctx context.Context) (s claimState, changed <-chan struct{}, ok bool) {
	for {
		seen := false
		if k.call(ctx, func(now time.Duration) { s, seen, changed = k.look(now) }) != nil {
			return claimState{}, nil, false
		}
		if seen {
			return s, changed, true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return claimState{}, nil, false
		case <-k.ended:
			return claimState{}, nil, false
		}
	}
}

// look returns the state of the claim, and whether the agent sees each Lease now. The channel
// is closed at the next change. The agent watches the Leases for a minute more.
func (k calls) look(now time.Duration) (s claimState, seen bool, changed <-chan struct{}) {
	k.quiet, k.interestedUntil = true, now+interest
	s, seen = claimState{Claim: k.of.LocalText(), Held: k.hold != nil && k.hold.phase(now) != lost}, true
	for _, v := range k.claim.Views() {
		own := k.hold != nil && k.hold.slot == v.Slot
		slot := slotState{Slot: v.Slot}
		switch r := v.Record; {
		case own:
			since := k.hold.since.UTC()
			slot = slotState{Slot: v.Slot, Holder: k.config.PodName, Address: k.config.PodIP, FencingToken: k.hold.token, Since: &since}
		case v.FreeAt == instant.Never:
			seen = seen && k.hold != nil // a holder watches no other slot of its semaphore
		case r.Holder != "" && v.FreeAt > now:
			slot.Holder, slot.Address, slot.FencingToken = api.PodOf(r.Holder), r.Notes.Address, r.Token
			if !r.AcquireTime.IsZero() {
				slot.Since = &r.AcquireTime
			}
		}
		s.Slots = append(s.Slots, slot)
	}
	return s, seen, k.changed
}
