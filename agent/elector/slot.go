// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package elector

import (
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/agent/pace"
)

// shared has the state that all slots of a claim share.
type shared struct {
	Claim
	// leaps is the number of leaps of the wall clock that the caller has reported.
	leaps int
	// known has the only holds for which the claim believes [Outcome.Proven]. If known is nil, the
	// claim believes [Outcome.Proven] for every hold.
	known map[string]bool
	// looks bounds the looks at all slots together. The bound applies only to a claim that
	// needs any one of its slots.
	looks lookBound
	// spread bounds the random delays before acquiring writes, for all slots together.
	spread spread
	// width is the number of slots at which a standby looks; zero for all slots. The field "from"
	// is the index of the first of these slots.
	from, width int
}

// jitter returns a random duration between half of d and d. So agents that failed together do
// not retry together.
func (c *shared) jitter(d time.Duration) time.Duration {
	return d/2 + time.Duration(c.Random.Uint64()%uint64(d/2+1)) //nolint:gosec // d is positive
}

// proven reports whether the Lease names this pod, and no child of the Lease's hold can be alive.
// If so, the pod may take the slot back at once, or release the slot. A hold of a boot without notes
// in the pod's volume is never proven. If the pod may run in a virtual machine of its own, a hold of
// another boot is never proven either. The earlier virtual machine may still start a child under that
// hold, so the notes and the shims of the present machine prove nothing.
func (c *shared) proven(f Facts, r lease.Record) bool {
	if !c.Self.Mine(r) || c.known != nil && !c.known[r.Hold] {
		return false
	}
	if !c.Self.Noted(r) {
		return false
	}
	rebooted := c.Self.Rebooted(r) && !c.OwnKernel
	if c.Self.Rebooted(r) && c.OwnKernel && c.Self.Boots != nil {
		return false
	}
	return rebooted || f.Outcomes[r.Hold].Proven
}

// shut reports whether the claim may not acquire the slot even if its Lease is free. Either a
// person has paused the slot, or the stamp does not admit the pod, or the shard is done. A slot
// with one of these obstacles is called shut.
func (c *shared) shut(r lease.Record) bool { return r.Paused != "" || c.unstamped(r) || c.done(r) }

// unstamped reports whether the slot is a shard whose stamp does not admit the pod's number
// of shards, or the pod's run.
func (c *shared) unstamped(r lease.Record) bool {
	return c.Shards > 0 && !r.Stamp.Admits(c.Shards, c.Run)
}

// done reports whether the slot is a shard that has succeeded in the pod's run.
func (c *shared) done(r lease.Record) bool { return c.Run != "" && r.Done.Has(c.Run) }

// freeAt returns the instant from which the Lease permits this pod to acquire a slot that is not
// shut. The second result is false while the claim does not see the Lease. If a release names another
// pod, this pod gives that other pod a head start. If [Facts.TakeFrom] is later, the pod waits until
// then.
//
// Three functions build on freeAt. The function takableAt adds a random delay, and campaign.take waits for
// its result before each acquiring write. To begin a campaign, a claim that needs all of its slots asks
// obtainableAt, and a claim that needs any one slot asks choosableAt.
func (c *shared) freeAt(f Facts, view *lease.Observer) (time.Duration, bool) {
	r := view.Shown()
	at, sees := view.FreeAt(c.Self.Budget.Duration)
	if sees && r.Holder == "" && r.Successor != "" && r.Successor != c.Self.Identity {
		at += successorsHeadStart
	}
	return max(at, f.TakeFrom), sees
}

// named reports whether the Lease shows a release that names this pod as successor.
func (c *shared) named(view *lease.Observer) bool {
	r := view.Shown()
	return r.UID != "" && r.Holder == "" && r.Successor == c.Self.Identity
}

// successorsHeadStart is the time in which only the successor that a release names may compete.
// A second is enough for a living successor to see the release. Even if its watch has just ended
// without an error, its next look begins within [api.Budget]'s Retry, which is a second. A
// successor that no longer exists delays the other pods only by that second.
const successorsHeadStart = time.Second

// slot is one Lease, as this claim sees and holds it.
type slot struct {
	*shared
	name string
	view lease.Observer
	// held is the hold of the slot; nil while the slot is not held. The field "lost" is set
	// once the Lease no longer names that hold.
	held *lease.Hold
	lost error

	look  look
	pace  pace.Pace
	delay delay
	// child reports that one of the children in [Facts.Children] has a token of the slot.
	child bool

	requests requests
	// tryAt is the earliest instant of the next write. If the API server has refused a write as
	// outdated, the field "refused" is the version that this write was to replace.
	tryAt   time.Duration
	refused string
	// reread reports that the claim must read the Lease consistently before the next renewal or
	// release.
	reread bool
	// unseenAt is the instant at which the claim last stopped seeing the Lease.
	unseenAt time.Duration
	// deniedAt is the instant of the last answer that shows no Lease. Either the API server has no
	// such Lease, or the pod may not read the Lease.
	deniedAt time.Duration
	// obtainedAt is the instant at which the pod last acquired the slot.
	obtainedAt time.Duration
	// confirmed is the value of the field "leaps" when the claim sent the last stored
	// acquisition or renewal. While "leaps" is greater, a renewal is due at the instant "tryAt".
	// At a leap, the claim sets "tryAt" to the present instant, but only once in Budget.Retry.
	// The field "leaptAt" is the instant of the last leap at which the claim did so.
	confirmed int
	leaptAt   time.Duration
}

// requests are the requests for the Lease of one slot, except looks. The API server may have stored
// a write without an answer, or may store it later.
type requests struct {
	// underWay has an entry for each request without an answer. For an acquiring write or a renewal,
	// the entry is the hold's random number ([api.HoldAnnotation]). For a release or a read, the
	// entry is empty.
	underWay []string
	// unread is the hold of an acquiring write whose answer was lost. The field is empty again
	// after a read of the Lease.
	unread string
	// unanswered is the earliest acquiring write for its hold and its version of the Lease, if the answer
	// to that write was lost. The field "readVersion" is the version that the last read of a look has shown.
	unanswered  Action
	readVersion string
}

// any reports whether a request is under way.
func (r *requests) any() bool { return len(r.underWay) > 0 }

// mayName reports whether a write may name the hold in the Lease, although no answer says so.
func (r *requests) mayName(hold string) bool {
	return r.unread == hold || slices.Contains(r.underWay, hold)
}

// answered ends the request with the given entry. If no such request is under way, answered does
// nothing.
func (r *requests) answered(hold string) {
	if i := slices.Index(r.underWay, hold); i >= 0 {
		r.underWay = slices.Delete(r.underWay, i, i+1)
	}
}

// lose remembers that the answer to an acquiring write was lost.
func (r *requests) lose(a Action) {
	r.unread = a.Record.Hold
	if was := r.unanswered.Record; was.Hold != a.Record.Hold || was.Version != a.Record.Version {
		r.unanswered = a
	}
}

// record returns the record that the slot's next write replaces.
func (s *slot) record() lease.Record {
	if s.held != nil {
		return s.held.Record()
	}
	r, _ := s.view.Record()
	return r
}

// unsee ends the look of the slot. From then on the claim sees no change of the Lease, so until
// the next read the slot does not count as free.
func (s *slot) unsee(now time.Duration) {
	if !s.view.IsBlind() {
		s.unseenAt = now
	}
	s.look.end()
	s.view.Blind()
}

// drop ends the hold and the watch of the slot. Until the next read, the slot does not count as
// free.
func (s *slot) drop(now time.Duration) {
	s.view.Learn(now, s.held.Record())
	s.unsee(now)
	s.held, s.lost, s.reread, s.refused, s.tryAt = nil, nil, false, "", 0
}

// obtain stores the hold of a slot that the claim has acquired.
func (s *slot) obtain(now time.Duration, held *lease.Hold) {
	s.held, s.lost, s.reread, s.requests.unread, s.refused, s.tryAt, s.look.misses = held, nil, false, "", "", 0, 0
	s.requests.unanswered, s.obtainedAt = Action{}, now
	s.spread.acquired()
	s.view.Learn(now, held.Record())
}

// backoff counts another miss of the slot, and returns the delay after that miss. Only a stored
// write, or a look that has lasted for the time "lasts", makes the delays short again. After an
// outage of the API server, the standbys wait before a takeover. This wait, a sixth of the lease
// duration, is the head start of the pod that the Lease still names. That pod must reach the API
// server within its head start. A request that times out takes half of the head start. So for that
// pod each delay takes at most a quarter of the head start.
func (s *slot) backoff(now, retryAfter time.Duration) time.Duration {
	budget := s.Self.Budget
	bound := min(slowest, budget.Renew)
	if r, ok := s.view.Record(); ok && s.Self.Mine(r) && s.held == nil {
		bound = min(budget.Retry, budget.Renew/4)
	}
	if now-s.look.began >= lasts {
		s.look.misses = 0
	}
	pause := min(pace.Backoff(s.look.misses), bound)
	s.look.misses++
	return s.jitter(max(pause, min(retryAfter, bound)))
}

// takableAt returns the instant from which this pod may write a slot that is not shut. That
// instant comes a random delay after the slot is free, unless the release names this pod. The
// second result is false while the claim does not see the Lease.
func (s *slot) takableAt(f Facts) (time.Duration, bool) {
	at, sees := s.freeAt(f, &s.view)
	if r, _ := s.view.Record(); sees && !s.named(&s.view) {
		at += s.delay.before(r, &s.spread, s.Random.Uint64)
	}
	return at, sees
}

// obtainableAt returns the instant from which the pod may take the slot, as far as the claim has
// seen. The pod may take its own slot back at once if no child of the hold in the Lease can be
// alive.
func (s *slot) obtainableAt(p *plan) time.Duration {
	r, ok := s.view.Record()
	duration := s.Self.Budget.Duration
	at, sees := s.takableAt(p.facts)
	// If the API server refuses watches, the claim never sees all its Leases at the same time. So
	// a campaign may begin if the claim has read each Lease within the last lease duration. The
	// claim reads each Lease again before the acquiring write.
	recent := p.now < s.view.Heard()+duration
	if !sees && r.Holder != "" {
		at = s.view.ExpiresAt(duration)
	}
	switch {
	case ok && s.proven(p.facts, r):
		return max(p.now, s.view.DoubtedUntil())
	case !ok || !sees && !recent:
		return pace.Never
	}
	return at
}

// choosableAt returns the instant from which a campaign may choose the slot. For a shut slot, or
// for a Lease that the claim does not see, the result is [pace.Never]. While a request for the
// slot is under way, the result is [pace.Never], too. If the Lease
// names this pod, and no child of the Lease's hold can be alive, the pod may choose at once. If
// the API server has refused to replace the present version of the Lease, the result is the
// instant "tryAt" or later.
func (s *slot) choosableAt(p *plan) time.Duration {
	at, sees := s.takableAt(p.facts)
	return s.choosable(p, at, sees)
}

// choosable returns the result of choosableAt, if the claim may take the slot from the instant "at".
func (s *slot) choosable(p *plan, at time.Duration, sees bool) time.Duration {
	r, ok := s.view.Record()
	switch {
	case !ok || !sees || s.requests.any() || s.shut(r):
		return pace.Never
	case s.proven(p.facts, r):
		at = max(p.now, s.view.DoubtedUntil())
	}
	if s.refused == r.Version {
		at = max(at, s.tryAt)
	}
	return at
}

// send adds an action to the plan, and remembers that the action's request is under way. The argument
// "hold" becomes the entry of the request.
func (s *slot) send(p *plan, a Action, hold string) {
	a.slot, a.leaps = s, s.leaps
	s.requests.underWay = append(s.requests.underWay, hold)
	s.pace.Spend(p.now)
	p.add(a)
}

// slots are some slots of a claim, in the order of acquisition.
type slots []*slot

// endedLooks returns actions that tell the caller which looks have ended.
func (all slots) endedLooks() []Action {
	var actions []Action
	for _, s := range all {
		if s.look.ended {
			s.look.ended = false
			actions = append(actions, Action{Kind: EndLook, Slot: s.name, slot: s})
		}
	}
	return actions
}

// drop ends the hold of each held slot, and the watch of that slot.
func (all slots) drop(now time.Duration) {
	for _, s := range all {
		if s.held != nil {
			s.drop(now)
		}
	}
}

// earliest calls the given function for the hold of each slot, and returns the earliest result;
// [pace.Never] without slots. Each of the slots must be held.
func (all slots) earliest(of func(*lease.Hold) time.Duration) time.Duration {
	if len(all) == 0 {
		return pace.Never
	}
	at := of(all[0].held)
	for _, s := range all[1:] {
		at = min(at, of(s.held))
	}
	return at
}

// named reports whether the release of any slot names this pod as successor.
func (all slots) named() bool {
	return slices.ContainsFunc(all, func(s *slot) bool { return s.named(&s.view) })
}

// shut reports whether any of the slots is shut: paused, done, or with a stamp that does not
// admit the pod. The claim may not acquire such a slot even if its Lease is free.
func (all slots) shut() bool {
	return slices.ContainsFunc(all, func(s *slot) bool { return s.shut(s.record()) })
}

// mineProven reports whether some Lease still names this pod, and no child of that Lease's hold
// can be alive.
func (all slots) mineProven(f Facts) bool {
	return slices.ContainsFunc(all, func(s *slot) bool {
		r, ok := s.view.Record()
		return ok && s.proven(f, r)
	})
}

// unread reports whether an acquiring write without an answer may have taken a slot.
func (all slots) unread() bool {
	return slices.ContainsFunc(all, func(s *slot) bool { return s.requests.unread != "" })
}

// requested reports whether a request other than a look is under way.
func (all slots) requested() bool {
	return slices.ContainsFunc(all, func(s *slot) bool { return s.requests.any() })
}
