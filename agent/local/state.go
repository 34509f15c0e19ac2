// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
)

// claimState is the answer about a claim.
type claimState struct {
	Claim string `json:"claim"`
	// Held reports that a program of this pod has a hold of the claim.
	Held  bool        `json:"held"`
	Slots []slotState `json:"slots"`
}

// slotState describes one slot. The fields after State are empty unless a pod has the slot.
type slotState struct {
	Slot         string     `json:"slot"`
	State        slotPhase  `json:"state"`
	Holder       string     `json:"holder,omitempty"`
	Address      string     `json:"address,omitempty"`
	FencingToken string     `json:"fencingToken,omitempty"`
	Since        *time.Time `json:"since,omitempty"`
}

// slotPhase is the state of a slot, as far as the agent sees it.
type slotPhase string

const (
	// isFree means that no pod has the slot.
	isFree slotPhase = "free"
	// isHeld means that a pod has the slot.
	isHeld slotPhase = "held"
	// isUnseen means that the agent does not watch the slot. If the pod has one slot of a
	// semaphore, the agent watches no other slot of the semaphore.
	isUnseen slotPhase = "unseen"
)

// getState answers with the state of a claim: once, or at each change (?watch=true).
func getState(k calls, w http.ResponseWriter, r *http.Request) {
	watch, problem := flagOf(r.URL.Query().Get("watch"), "watch")
	if problem != nil {
		problem.write(w)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), k.patience())
	defer cancel()
	g, ok := k.seen(ctx)
	switch {
	case !ok:
		unavailableProblem.write(w)
	case watch:
		takeOver(w, r, func(ctx context.Context, w http.ResponseWriter) { k.followState(ctx, w, g) })
	default:
		reply(w, http.StatusOK, g.state)
	}
}

// glance is what the agent sees of a claim at one instant.
type glance struct {
	state claimState
	// The field "seen" reports that the agent sees every Lease of the claim, or that the pod has
	// a hold of the claim.
	seen bool
	// The channel "changed" is closed at the next event that may change the state. Without such an
	// event, the state stays the same for the duration in the field "lasts".
	changed <-chan struct{}
	lasts   time.Duration
}

// followState writes a line with the present state, and another line after each change of the
// state.
func (k calls) followState(ctx context.Context, w http.ResponseWriter, g glance) {
	lines := newStream(w)
	for told := (claimState{}); ; {
		if g.seen && !reflect.DeepEqual(g.state, told) {
			if lines.line(g.state) != nil {
				return
			}
			told = g.state
		}
		var ok bool
		if g, ok = k.next(ctx, g); !ok {
			return
		}
	}
}

// The method "seen" waits until the agent sees every Lease of the claim, or until the pod has a
// hold of the claim. The method returns the claim's state. The result "ok" is false if ctx or the
// loop ends first.
func (k calls) seen(ctx context.Context) (g glance, ok bool) {
	for ok = k.call(ctx, func(now time.Duration) { g = k.glance(now) }) == nil; ok && !g.seen; {
		g, ok = k.next(ctx, g)
	}
	return g, ok
}

// next waits for the next change, but at most for half of the time [interest], and returns the
// state after that wait. Each call makes the agent watch for another [interest]. So the watch does
// not end while a program waits. The result "ok" is false if ctx or the loop ends first.
func (k calls) next(ctx context.Context, g glance) (next glance, ok bool) {
	timer := time.NewTimer(min(g.lasts, interest/2))
	defer timer.Stop()
	select {
	case <-g.changed:
	case <-timer.C:
	case <-ctx.Done():
		return g, false
	case <-k.ended:
		return g, false
	}
	err := k.call(ctx, func(now time.Duration) { next = k.glance(now) })
	return next, err == nil
}

// glance returns what the agent sees now. From now on the agent watches the Leases for at least
// a minute.
func (k calls) glance(now time.Duration) glance {
	k.quiet, k.interestedUntil = true, now+interest
	g := glance{seen: true, changed: k.changed, lasts: interest}
	g.state = claimState{Claim: k.of.LocalText(), Held: k.hold != nil && k.hold.phase(now) != lost}
	for _, v := range shown(k) {
		own := k.hold != nil && k.hold.tokenOf(v.Slot) != ""
		slot := slotState{Slot: v.Slot, State: isFree}
		switch r := v.Record; {
		case own:
			since := k.hold.since.UTC()
			slot = slotState{Slot: v.Slot, State: isHeld, Holder: k.config.PodName, Address: k.config.PodIP, FencingToken: k.hold.tokenOf(v.Slot), Since: &since}
		case v.FreeAt == pace.Never:
			slot.State = isUnseen
			g.seen = g.seen && k.hold != nil
		case r.Holder != "" && v.FreeAt > now:
			g.lasts = min(g.lasts, v.FreeAt-now)
			slot.State, slot.Holder, slot.Address, slot.FencingToken = isHeld, api.PodOf(r.Holder), r.Profile.Address, r.Token
			if !r.AcquireTime.IsZero() {
				slot.Since = &r.AcquireTime
			}
		}
		g.state.Slots = append(g.state.Slots, slot)
	}
	return g
}

// The function "shown" returns the slots that the answers show. For a read-write lock the result
// has the intent, and one slot for each reader that may hold at the same time.
func shown(k calls) []elector.View {
	views := k.claim.Views()
	if k.of.Kind == api.RWLock {
		return views[:1+k.of.Size]
	}
	return views
}

// remembersHold reports whether some Lease still names an ended hold of this pod under which a program
// may be working. Until that Lease expires, the pod acquires no other slot of the claim.
func remembersHold(views []elector.View, now time.Duration, proven func(hold string) bool) bool {
	return slices.ContainsFunc(views, func(v elector.View) bool {
		return v.Mine && v.FreeAt != pace.Never && now < v.ExpiresAt && !proven(v.Record.Hold)
	})
}

// allTaken returns the problem of a bid that needs any one of the slots; nil if one of them may
// be free.
func allTaken(views []elector.View, available func(elector.View) bool) *problem {
	holder := ""
	for _, v := range views {
		free := available(v)
		switch {
		case v.FreeAt == pace.Never || free && v.Record.Paused == "":
			return nil
		case !free && holder == "":
			holder = api.PodOf(v.Record.Holder)
		}
	}
	if holder == "" {
		return pausedProblem
	}
	return busyProblem(holder)
}

// anyTaken returns the problem of a bid that needs all of the slots; nil if all of them may be
// free.
func anyTaken(views []elector.View, available func(elector.View) bool) *problem {
	for _, v := range views {
		switch {
		case v.FreeAt == pace.Never:
		case !available(v):
			return busyProblem(api.PodOf(v.Record.Holder))
		case v.Record.Paused != "" && len(views) > 1:
			return pausedProblem
		}
	}
	return nil
}

// These constants bound the rate of reads, however often a program calls. A program that calls once in
// each second never waits for a read. The wait at the same barrier also sends requests, and both
// together send at most two requests a second for one Lease.
const (
	looksEvery = time.Second
	looksBurst = 10
)

// looks has the reads of a barrier's first Lease, for calls that do not wait at the barrier. At most
// one of these reads is under way, because each request needs a TLS connection. The connections of
// hundreds of calls would exceed the agent's memory.
type looks struct {
	// The channel "turn" has room for one value. A call that has sent this value may read.
	turn chan struct{}
	// begun counts the reads so far.
	begun atomic.Int64
	// The field "pace" bounds the rate of the reads. Only the call with the turn uses this field.
	pace pace.Pace
	// The field "closed" is the number of the last read that showed a closed barrier. Only the call
	// with the turn uses this field.
	closed int64
}

// look reads whether the barrier is open, unless this process has already seen the open barrier. The
// answer of one read also serves each other call that began before this read. Before enroll has made
// the Lease, the barrier is not open.
func (a *arrival) look(ctx context.Context) (open bool, p *problem) {
	if a.isOpen() {
		return true, nil
	}
	ctx, cancel := context.WithTimeout(ctx, patienceOf(a.budget))
	defer cancel()
	before := a.looks.begun.Load()
	select {
	case a.looks.turn <- struct{}{}:
		defer func() { <-a.looks.turn }()
	case <-ctx.Done():
		return false, unavailableProblem
	}
	if !a.isOpen() && a.looks.closed > before {
		return false, nil
	}
	if pause := a.looks.pace.NextAt() - a.config.Clock(); pause > 0 {
		select {
		case <-a.opened:
		case <-time.After(pause):
		case <-ctx.Done():
			return false, unavailableProblem
		}
	}
	if a.isOpen() {
		return true, nil
	}
	a.looks.pace.Spend(a.config.Clock())
	number := a.looks.begun.Add(1)
	switch l, err := a.config.Barriers.GetLease(ctx, a.leases[0]); {
	case err != nil && !errors.Is(err, kube.ErrNotFound):
		return false, unavailableProblem
	case err != nil, api.Opened(l.Annotations[api.OpenedAnnotation]) < a.of.Size:
		a.looks.closed = number
		return false, nil
	}
	a.open()
	return true, nil
}
