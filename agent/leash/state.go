// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package leash

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/instant"
	"github.com/metaparticle-io/metaparticle/api"
)

// Tie is the state of one claim. This state limits the grants of the shims that are tied to the
// claim's hold.
type Tie struct {
	// Deadline is the instant by which the tied programs must be dead, unless the hold is renewed;
	// [instant.Never] while no program has a hold.
	Deadline time.Duration
	// Unrenewed reports that the hold has not been renewed since the last leap of the wall clock.
	Unrenewed bool
	// Leaps is the number of leaps that the claim knows ([Leash.Leaps]).
	Leaps int
}

// tied is a claim. A shim is tied to the claim's hold if the shim's serial is not above upTo.
type tied struct {
	Tie
	upTo int
}

// leashed is a shim with its grant.
type leashed struct {
	report gate.Report
	// number is the number of the shim's present grant; empty without a grant. The field "until" is
	// the deadline of that grant. The field "serial" is the place of the grant among all first
	// grants.
	number string
	until  time.Duration
	serial int
	// broken reports that the leash never prolongs the grant again. The field "killed" reports that
	// the leash has ordered the shim to kill its program.
	broken, killed bool
	// answered is the number of the last leap after which a grant has let the frozen program
	// continue; zero for none.
	answered int
	// resend reports that the last order may not have arrived. The field "retryAt" is the earliest
	// instant of the next order after a failed one.
	resend  bool
	retryAt time.Duration
}

// state decides about the grants. Its methods take the time as an argument, and send nothing.
type state struct {
	budget  api.Budget
	name    func() string
	claims  []tied
	shims   map[gate.ShimID]*leashed
	serials int
	// leaps counts the leaps that shims have reported.
	leaps int
}

// order is a grant for a shim, or the order to kill the shim's program.
type order struct {
	shim gate.ShimID
	kill bool
	// first reports that the shim has had no grant with this number before.
	first    bool
	number   string
	deadline time.Duration
	leap     int
}

func newState(b api.Budget, name func() string) state {
	return state{budget: b, name: name, shims: map[gate.ShimID]*leashed{}}
}

// add adds a claim without a hold, and returns its index.
func (s *state) add() (claim int) {
	s.claims = append(s.claims, tied{Tie: Tie{Deadline: instant.Never}})
	return len(s.claims) - 1
}

// tie remembers the state of a claim. The result reports whether the grant of each tied shim ends by
// the deadline of the claim's hold.
func (s *state) tie(claim int, t Tie, join bool) (covered bool) {
	of := &s.claims[claim]
	if join || of.Deadline == instant.Never {
		of.upTo = s.serials
	}
	of.Tie = t
	for _, its := range s.shims {
		if its.number != "" && its.serial <= of.upTo && its.until > t.Deadline {
			return false
		}
	}
	return true
}

// The method "breaks" makes the leash never again prolong the grant of a shim that is tied to the
// claim's hold.
func (s *state) breaks(claim int) {
	of := &s.claims[claim]
	for _, its := range s.shims {
		if of.Deadline != instant.Never && its.number != "" && its.serial <= of.upTo {
			its.broken = true
		}
	}
	of.Deadline, of.Unrenewed = instant.Never, false
}

// retire forgets a claim whose loop has ended without a hold. After a leap, the grant that thaws a
// program waits until each claim knows of the leap. That grant does not wait for a retired claim.
func (s *state) retire(claim int) {
	s.claims[claim].Tie = Tie{Deadline: instant.Never, Leaps: math.MaxInt}
}

// learn stores the report of a shim, and reports whether the report contains a new leap.
func (s *state) learn(r gate.Report) (leapt bool) {
	if r.Dead || r.Phase == gate.Ended {
		delete(s.shims, r.Shim)
		return false
	}
	its := s.shims[r.Shim]
	if its == nil {
		its = &leashed{}
		s.shims[r.Shim] = its
	}
	leapt = r.Leap != 0 && (r.Leap != its.report.Leap || r.Connected && !its.report.Connected)
	if leapt {
		s.leaps++
		its.answered = 0 // a grant that answered the leap may be lost with its connection
	}
	its.resend = its.resend || r.Connected && !its.report.Connected
	its.report = r
	if r.Phase == gate.Waiting && r.Hold == its.number {
		// No descendant lives under the grant, and the shim starts no child under it.
		its.number, its.until, its.broken, its.killed = "", 0, false, false
	}
	return leapt
}

// next returns the orders that are due, and the instant of the next ones.
func (s *state) next(now time.Duration) (orders []order, at time.Duration) {
	at = instant.Never
	for id, its := range s.shims {
		switch {
		case !its.report.Connected:
		case now < its.retryAt:
			at = min(at, its.retryAt)
		case its.broken && !its.killed:
			its.killed = true
			orders = append(orders, order{shim: id, kill: true})
		case its.broken, s.foreign(its), s.superseded(its):
		default:
			o, next := s.grant(now, its)
			at = min(at, next)
			if o.number != "" {
				o.shim = id
				orders = append(orders, o)
			}
		}
	}
	// A replay of the simulation needs the same order each time.
	slices.SortFunc(orders, func(a, b order) int { return cmp.Compare(a.shim, b.shim) })
	return orders, at
}

// foreign reports whether the shim's program runs under the grant of an earlier agent process.
// The program may know a hold of that process, so the leash never prolongs the grant.
func (s *state) foreign(its *leashed) bool {
	return its.report.Phase != gate.Waiting && its.report.Hold != its.number
}

// superseded reports whether the shim's container has a later shim.
func (s *state) superseded(its *leashed) bool {
	for _, other := range s.shims {
		if other.report.Container == its.report.Container && other.report.Began > its.report.Began {
			return true
		}
	}
	return false
}

// grant returns the next grant of the shim, if that grant is due. If no grant is due, the order has
// no number. The second result is the instant at which the next grant is due.
func (s *state) grant(now time.Duration, its *leashed) (o order, at time.Duration) {
	first := its.number == ""
	deadline, bounded, thawable := s.bound(now, its)
	thaws := thawable && its.report.Leap != 0 && its.report.Leap != its.answered
	step := s.budget.Deadline() / 4
	switch {
	case first && its.report.Leap != 0 && !thawable:
		return order{}, instant.Never // the loop wakes when a claim knows of the leap
	case first, thaws, its.resend:
	case bounded && deadline <= its.until:
		return order{}, instant.Never // a renewal of the hold wakes the loop
	case !bounded && deadline < its.until+step:
		return order{}, its.until + step - s.budget.Deadline()
	}
	if first {
		s.serials++
		its.number, its.serial = s.name(), s.serials
	}
	its.until, its.resend = max(its.until, deadline), false
	o = order{first: first, number: its.number, deadline: its.until}
	if thawable {
		o.leap, its.answered = its.report.Leap, its.report.Leap
	}
	if bounded {
		return o, instant.Never
	}
	return o, its.until + step - s.budget.Deadline()
}

// bound returns the latest deadline that a grant of the shim may have now. The result "bounded"
// reports that a hold limits that deadline. The result "thawable" reports that the grant may let
// a frozen program continue.
func (s *state) bound(now time.Duration, its *leashed) (deadline time.Duration, bounded, thawable bool) {
	deadline, thawable = now+s.budget.Deadline(), true
	for _, of := range s.claims {
		thawable = thawable && of.Leaps >= s.leaps
		if its.number == "" || its.serial > of.upTo || of.Deadline == instant.Never {
			continue
		}
		thawable = thawable && !of.Unrenewed
		if of.Deadline <= deadline {
			deadline, bounded = of.Deadline, true
		}
	}
	return deadline, bounded, thawable
}

// missed remembers that an order could not be sent. The argument "unsent" reports that no part of
// the order has left the agent. If "unsent" is false, the shim may have received a grant all
// the same, so the deadline of that grant stays known. The shim never learns the number of a
// first grant that is unsent, so the method "missed" forgets that number.
func (s *state) missed(o order, unsent bool, now time.Duration) {
	its := s.shims[o.shim]
	if its == nil {
		return
	}
	if o.first && unsent && its.number == o.number {
		its.number, its.until, its.broken = "", 0, false
	}
	its.killed, its.answered, its.resend = false, 0, its.number != ""
	its.retryAt = now + s.budget.Retry
}
