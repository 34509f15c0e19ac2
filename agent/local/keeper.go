// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/elector"
	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/agent/linux"
	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
)

// interest is the time for which the agent watches the Leases after a call that only reads
// their state. If a program repeats the call within that time, the agent goes on with the same
// watch, and reads nothing anew.
const interest = time.Minute

// keeper keeps one claim. Only the goroutine of the method "run" uses the fields from "claim"
// on.
type keeper struct {
	config Config
	of     api.Claim
	self   lease.Self
	posts  chan func(now time.Duration)
	// The channel "ended" is closed at the end of the method "run", so that no call waits for
	// the loop any more.
	ended chan struct{}

	claim    *elector.Elector
	group    sync.WaitGroup
	now      time.Duration
	stopping bool
	bids     []*bid
	// hold is nil while the pod does not hold.
	hold *hold
	// interestedUntil is the instant until which the agent watches although no bid waits.
	interestedUntil time.Duration
	// watchers counts the waiting calls that bid for several claims, one after the other, and
	// for another claim first. During such a call the agent watches this claim's Leases even
	// while the call bids for another claim.
	watchers int
	// synced decides how a GET of metaparticle/sync is answered after a loss of the lock.
	synced synced
	// The channel "changed" is closed, and replaced, when the state of a Lease or of the hold may
	// have changed.
	changed chan struct{}
	// index is the number by which the leash knows this claim. The field "leaps" is the number of
	// leaps that shims had reported by the last call of [keeper.learnLeap].
	index, leaps int
	// clocks notice a leap of the wall clock. The field "noticed" reports that the message about the last
	// such leap ([Config.Leaps]) is still to come.
	clocks  *linux.Leaps
	noticed bool
	// The field "renews" reports that the loop must decide again at once, because a renewal is
	// due.
	renews bool
	// The field "quiet" reports that the posted function changes no answer, so the loop does not
	// wake the calls that follow the state. A woken call posts a function that reads the state.
	// If that function were not quiet, the loop would wake all these calls again, for ever.
	quiet bool
}

func newKeeper(c Config, budget api.Budget, of api.Claim) *keeper {
	k := &keeper{
		config: c, of: of,
		self:  lease.Self{Identity: api.Identity(c.PodName, c.PodUID), BootID: c.BootID, Boots: c.Boots, Budget: budget},
		posts: make(chan func(time.Duration)), ended: make(chan struct{}),
		changed: make(chan struct{}), index: c.Leash.Add(), synced: synced{held: c.Restarted},
		clocks: linux.LeapsOf(c.Clock, func() time.Duration { return c.Clock() + c.Ahead() }),
	}
	k.claim = elector.New(elector.Config{
		Claim:  elector.Claim{Need: of.Need(), Self: k.self, OwnKernel: c.OwnKernel, OwnProofs: true, Random: c.Random()},
		Leases: c.Leases, Post: k.post, Group: &k.group, Answered: k.answered, Log: c.Log,
	}, c.Clock())
	return k
}

// run decides about the claim until the channel "stop" is closed and nothing is left to release,
// or until ctx ends.
func (k *keeper) run(ctx context.Context, stop <-chan struct{}) error {
	ctx, cancel := context.WithCancel(ctx)
	defer k.group.Wait()
	defer close(k.ended)
	defer cancel()
	k.now = k.config.Clock()
	for {
		wake := k.decide(ctx)
		if k.claim.State().Stage == elector.Done {
			k.config.Leash.Retire(k.index)
			return nil
		}
		timer := time.NewTimer(k.pause(wake))
		post := func(time.Duration) {}
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-stop:
			stop = nil
			post = func(time.Duration) { k.stop() }
		case post = <-k.posts:
		case <-timer.C:
		}
		timer.Stop()
		k.now = k.config.Clock()
		// Of an agent that was suspended, a call may reach the loop before the message about a leap. So the
		// loop compares the clocks before each answer.
		leapt := k.clocks.Leapt()
		if leapt {
			k.clocks.Rebase()
			k.noticed = true
			k.leapt(k.now)
		}
		post(k.now)
		if !k.quiet || leapt {
			k.tell()
		}
		k.quiet = false
	}
}

// pause returns the time until the loop must decide again, or check the clock.
func (k *keeper) pause(wake time.Duration) time.Duration {
	if k.hold != nil || k.watches() {
		return pace.Sleep(k.config.Clock(), wake)
	}
	// Without a hold or a bid, a late decision harms no program. So the sleep needs no bound.
	if wake == pace.Never {
		return pace.Never
	}
	return max(wake-k.config.Clock(), time.Nanosecond)
}

// decide sends the requests that the claim decides on, until there is nothing more to do now.
// The result is the instant of the next decision.
func (k *keeper) decide(ctx context.Context) time.Duration {
	for {
		k.renews = false
		f := k.facts()
		state, wake := k.claim.Step(ctx, k.now, f, func(hold string) elector.Outcome { return elector.Outcome{Proven: k.proven(hold)} })
		switch {
		case state.Stage == elector.Held && k.hold == nil:
			k.begin(state)
		case k.hold != nil:
			at, over := k.keep(state)
			if k.renews {
				continue
			}
			if !over {
				k.refuse()
				return min(wake, at)
			}
		default:
			k.refuse()
			if f.Settled || k.watches() {
				return wake
			}
			return min(wake, k.interestedUntil)
		}
	}
}

// hasWaiting reports whether a bid waits for the slot.
func (k *keeper) hasWaiting() bool { return len(k.bids) > 0 }

// The method "watches" reports whether the Leases must be watched. A bid that waits for a slot
// needs the Leases. A waiting call for several claims needs them, too.
func (k *keeper) watches() bool { return k.hasWaiting() || k.watchers > 0 }

// facts returns the inputs of the claim's next decision.
func (k *keeper) facts() elector.Facts {
	f := elector.Facts{
		Writes:  k.hasWaiting() && k.bids[0].writes,
		Wall:    k.config.Wall(),
		Compete: k.hasWaiting() && k.hold == nil && !k.stopping,
		Profile: lease.Profile{Address: k.config.PodIP},
		Settled: k.hold == nil && !k.watches() && k.now >= k.interestedUntil,
	}
	if k.hold != nil {
		f.Profile.Serving = k.hold.since
		f.Renew, f.Guard = k.hold.supported(k.now) && !k.hold.returned, true
	}
	return f
}

// proven reports whether no program can be working under the hold. For a hold of an earlier
// agent process the result is false.
func (k *keeper) proven(number string) bool {
	own := k.claim.Own(number)
	return own != nil && !own.Live
}

// The method "answered" logs each release, and each request that failed.
func (k *keeper) answered(a elector.Action, _, refusal error) {
	switch {
	case refusal == nil && a.Kind == elector.Release:
		k.config.Log.Info("released", "lease", a.Slot, "hold", a.Hold)
	case refusal != nil && a.Kind == elector.Renew:
		k.config.Log.Debug("not renewed", "lease", a.Slot, "hold", a.Record.Hold, "err", refusal)
	case refusal != nil:
		k.config.Log.Debug("request failed", "lease", a.Slot, "err", refusal)
	}
}

// begin gives the hold to the first bid. If that bid cannot take the hold, or no bid waits, the
// agent releases the slot.
func (k *keeper) begin(s elector.State) {
	if !k.hasWaiting() || k.stopping || k.bids[0].writes != s.Writes {
		k.claim.LetGo(k.now, elector.Parting{GiveBack: true})
		return
	}
	first := k.bids[0]
	k.bids = k.bids[1:]
	h := &hold{
		number: s.Hold, tokens: s.Tokens, bid: first, since: s.ServesSince(k.config.Wall()),
		deadline: s.Deadline, drainAt: s.DrainAt, unrenewed: !s.Renewed(), beats: first.every, beatAt: k.now,
	}
	h.slot, h.token = latest(s.Tokens)
	if first.stream {
		h.streams = 1
	}
	if k.config.Leash != nil {
		h.kill = k.self.Budget.Kill
	}
	k.hold, h.owed = h, true
	k.config.Log.Info("acquired", "lease", h.slot, "hold", h.number, "token", h.token)
	if k.tie(false) && (!h.unrenewed || h.kill == 0) {
		k.deliver()
	}
}

// deliver gives the hold to the program whose bid got it.
func (k *keeper) deliver() {
	h := k.hold
	h.owed, k.claim.Own(h.number).Live = false, true
	h.beatAt = k.now
	if h.bid.anyProgram {
		k.synced.holds()
	}
	h.bid.done <- outcome{hold: h, answer: newHolding(k.of, h, k.now)}
}

// keep decides about the present hold. If the hold has ended, the second result is true, and the
// caller decides again. If not, the first result is the instant of the next decision.
func (k *keeper) keep(s elector.State) (at time.Duration, over bool) {
	h := k.hold
	if h.unrenewed && s.Renewed() && h.kill > 0 {
		h.beatAt = k.now // the frozen program could send no heartbeat
	}
	h.deadline, h.drainAt, h.unrenewed = s.Deadline, s.DrainAt, !s.Renewed()
	h.asked = s.Yield.Hold != "" || s.Paused.Pause == api.PauseStop
	if ends := h.phase(k.now) == ending; ends != h.ends {
		// The instant drainAt is over, so no timer wakes the loop for the news any more. The posted
		// function may be quiet.
		h.ends = ends
		k.tell()
	}
	part := elector.Parting{}
	switch {
	case h.returned:
		k.claim.Own(h.number).Live = false
		part.GiveBack = true
		if s.Yield.Hold != "" {
			// The other pods get a head start, as they do when a shim's child yields.
			part.HeadStart, part.Successor = k.self.Budget.Retry, s.Yield.Successor
		}
	case s.Lost != nil || k.now >= s.Deadline:
	case k.stopping && h.streams == 0:
		// The kubelet stops the agent when the containers of the program have ended, or when the
		// grace of the pod is over. The agent cannot distinguish these two cases. Only the end of
		// the containers would prove that the work has ended, so the agent does not release the
		// slot.
	default:
		if k.tie(false) && h.owed && !h.unrenewed {
			k.deliver()
		}
		return min(s.Deadline, h.wake(k.now)), false
	}
	k.config.Log.Info("hold ends", "lease", h.slot, "hold", h.number, "returned", h.returned)
	h.over = true
	k.hold = nil
	k.untie(h)
	k.tell()
	k.claim.LetGo(k.now, part)
	return 0, true
}

// stop ends the claim: no further hold begins, and all bids are refused.
func (k *keeper) stop() {
	k.stopping = true
	k.claim.Stop(k.now)
	for _, b := range k.bids {
		b.done <- outcome{problem: stoppingProblem}
	}
	k.bids = nil
}

// refuse refuses each bid whose field "now" is true, if the slots of the bid are taken.
func (k *keeper) refuse() {
	k.bids = slices.DeleteFunc(k.bids, func(b *bid) bool {
		if !b.now {
			return false
		}
		problem := k.obstacle(b)
		if problem != nil {
			b.done <- outcome{problem: problem}
		}
		return problem != nil
	})
}

// obstacle returns the problem because of which the bid cannot get a hold now; nil if the slots
// of the bid may be free.
func (k *keeper) obstacle(b *bid) *problem {
	if k.hold != nil {
		return busyProblem(k.config.PodName)
	}
	// A slot of this pod counts as free if no program can be working under the slot's hold.
	free := func(v elector.View) bool { return v.FreeAt <= k.now || v.Mine && k.proven(v.Record.Hold) }
	views := k.claim.Views()
	if k.of.Kind == api.RWLock && !b.writes {
		views = views[:1+k.of.Size]
	}
	if remembersHold(views, k.now, k.proven) {
		return busyProblem(k.config.PodName)
	}
	switch {
	case k.of.Kind != api.RWLock:
		return allTaken(views, free)
	case b.writes:
		return anyTaken(views, free)
	}
	return cmp.Or(anyTaken(views[:1], free), allTaken(views[1:], free))
}

// tell wakes all calls that follow the state.
func (k *keeper) tell() {
	close(k.changed)
	k.changed = make(chan struct{})
}

// post passes f to the loop. If ctx or the loop ends first, post drops f.
func (k *keeper) post(ctx context.Context, f func(now time.Duration)) {
	select {
	case k.posts <- f:
	case <-ctx.Done():
	case <-k.ended:
	}
}
