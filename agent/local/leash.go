// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
)

// LeashGate is the agent's end of the connections to the pod's shims: a [gate.Server].
type LeashGate interface {
	// Reports delivers the whole state of a shim whenever that state changes.
	Reports() <-chan gate.Report
	Grant(shim gate.ShimID, grant gate.Grant) error
	Drain(shim gate.ShimID, reason string, grace time.Duration) error
}

// LeashConfig has the settings of a Leash. All fields but Log are needed.
type LeashConfig struct {
	Gate   LeashGate
	Budget api.Budget
	BootID string
	// Clock returns the time since boot (CLOCK_BOOTTIME).
	Clock  func() time.Duration
	Random rand.Source
	Log    *slog.Logger
}

// Leash lets shims kill the programs that may know a lost hold. A nil *Leash belongs to a pod without
// shims.
//
// Each gated container starts its program through a shim. The leash gives each shim a grant at once,
// and prolongs that grant again and again, without the API server. A shim is tied to a hold if its program
// may know the hold. While it is tied, no deadline moves beyond the deadline of that hold. So if the hold
// is not renewed in time, the shim kills its program without an order. No deadline moves to an
// earlier instant, so no shim has to confirm anything:
//
//   - A grant ends at most [api.Budget.Deadline] after its sending. So a grant ends before each
//     hold whose acquiring write is sent later.
//   - If a grant was sent between the acquiring write and its answer, [Leash.Tie] returns false.
//     Then the claim renews the hold before any program gets an answer.
//   - After [Leash.Break] the deadlines of all tied shims stay as they are. If the order to kill
//     arrives, the shim kills its program before the end of its grant.
//   - After a leap of the wall clock a shim freezes its program. The leash thaws the program
//     only when each claim knows of the leap. Each hold to which the shim is tied must also
//     have been renewed since the leap.
//
// A program that starts after the last call about a hold does not know that hold, so its loss does not
// kill that program. A new agent process knows neither the holds nor the grants of an earlier process. So
// those grants end, and the shims kill all programs at their deadlines.
//
// Rejected: a confirmation of each hold by each shim, because the child would start without a
// deadline, and an acquisition would move a running child's deadline to an earlier instant; a shim
// that starts the program only after its first hold, because a program that does not run cannot
// ask; a shim that watches the Lease, which needs the pod's credentials in the application's
// container; the exit of the sidecar as the sign of a loss, on which only the kubelet reacts, after
// seconds.
type Leash struct {
	config LeashConfig
	random *rand.Rand
	// wake delivers a value when a claim has changed. The field "leaps" delivers the number of
	// leaps so far when a shim reports a leap.
	wake  chan struct{}
	leaps chan int

	mu    sync.Mutex
	state leashes
}

// NewLeash returns a leash without claims. No goroutine starts before [Leash.Run].
func NewLeash(c LeashConfig) *Leash {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	l := &Leash{config: c, random: rand.New(c.Random), wake: make(chan struct{}, 1), leaps: make(chan int, 1)}
	l.state = newLeashes(c.Budget, func() string { return fmt.Sprintf("leash-%016x", l.random.Uint64()) })
	return l
}

// Add adds a claim without a hold, and returns the index of the claim. The caller adds all claims
// before [Leash.Run].
func (l *Leash) Add() (claim int) {
	if l == nil {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state.add()
}

// Tie remembers the state of a claim, which the caller names by its index. All present shims become
// tied to the claim's hold if the argument "join" is true, or if the claim had no hold before. The
// result reports whether the grant of each tied shim ends by the deadline of the hold. If not, the
// caller must renew the hold before it answers that the hold is good.
func (l *Leash) Tie(claim int, t Tie, join bool) (covered bool) {
	if l == nil {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.changed()
	return l.state.tie(claim, t, join)
}

// Break remembers that a hold of the claim has ended although no program has given it back. The
// programs that may know the hold are killed.
func (l *Leash) Break(claim int) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.changed()
	l.state.breaks(claim)
}

// Retire remembers that the caller's loop for the claim has ended, and that the pod has no hold of that
// claim.
func (l *Leash) Retire(claim int) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.changed()
	l.state.retire(claim)
}

// Leaps delivers the number of leaps of the wall clock that shims have reported so far. The
// caller makes each claim note the leap, and then passes that number in [Tie.Leaps].
func (l *Leash) Leaps() <-chan int {
	if l == nil {
		return nil
	}
	return l.leaps
}

func (l *Leash) changed() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Run gives and prolongs grants until ctx ends.
func (l *Leash) Run(ctx context.Context) {
	for {
		timer := time.NewTimer(l.act())
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case r := <-l.config.Gate.Reports():
			l.learn(r)
		case <-l.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// learn stores the report of a shim. If the report contains a new leap, learn announces the leap.
func (l *Leash) learn(r gate.Report) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.state.learn(r) {
		return
	}
	select {
	case <-l.leaps: // only the newest number of leaps counts
	default:
	}
	l.leaps <- l.state.leaps
}

// act sends the orders that are due, and returns the time until the next ones are due.
func (l *Leash) act() time.Duration {
	// The method "act" reads the clock under the mutex, so each later call of Tie comes after the
	// instant "now".
	l.mu.Lock()
	now := l.config.Clock()
	orders, at := l.state.next(now)
	l.mu.Unlock()
	for _, o := range orders {
		if err := l.send(o); err != nil {
			l.config.Log.Debug("order to a shim was not sent", "shim", o.shim, "err", err)
			l.mu.Lock()
			l.state.missed(o, gate.Unsent(err), now)
			l.mu.Unlock()
			at = min(at, now+l.config.Budget.Retry)
		}
	}
	return pace.Sleep(l.config.Clock(), at)
}

func (l *Leash) send(o order) error {
	if o.kill {
		l.config.Log.Info("killing a program, because its pod has lost a hold", "shim", o.shim)
		return l.config.Gate.Drain(o.shim, "the pod has lost a hold of the local API", 0)
	}
	return l.config.Gate.Grant(o.shim, gate.Grant{
		Hold: o.number, Deadline: o.deadline, BootID: l.config.BootID, Kill: l.config.Budget.Kill, Leap: o.leap,
	})
}

// Tie is the state of one claim. This state limits the grants of the shims that are tied to the
// claim's hold.
type Tie struct {
	// Deadline is the instant by which the tied programs must be dead, unless the hold is renewed;
	// [pace.Never] while no program has a hold.
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

// leashes decides about the grants. Its methods take the time as an argument, and send nothing.
type leashes struct {
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

func newLeashes(b api.Budget, name func() string) leashes {
	return leashes{budget: b, name: name, shims: map[gate.ShimID]*leashed{}}
}

// add adds a claim without a hold, and returns its index.
func (s *leashes) add() (claim int) {
	s.claims = append(s.claims, tied{Tie: Tie{Deadline: pace.Never}})
	return len(s.claims) - 1
}

// tie remembers the state of a claim. The result reports whether the grant of each tied shim ends by
// the deadline of the claim's hold.
func (s *leashes) tie(claim int, t Tie, join bool) (covered bool) {
	of := &s.claims[claim]
	if join || of.Deadline == pace.Never {
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
func (s *leashes) breaks(claim int) {
	of := &s.claims[claim]
	for _, its := range s.shims {
		if of.Deadline != pace.Never && its.number != "" && its.serial <= of.upTo {
			its.broken = true
		}
	}
	of.Deadline, of.Unrenewed = pace.Never, false
}

// retire forgets a claim whose loop has ended without a hold. After a leap, the grant that thaws a
// program waits until each claim knows of the leap. That grant does not wait for a retired claim.
func (s *leashes) retire(claim int) {
	s.claims[claim].Tie = Tie{Deadline: pace.Never, Leaps: math.MaxInt}
}

// learn stores the report of a shim, and reports whether the report contains a new leap.
func (s *leashes) learn(r gate.Report) (leapt bool) {
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
func (s *leashes) next(now time.Duration) (orders []order, at time.Duration) {
	at = pace.Never
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
func (s *leashes) foreign(its *leashed) bool {
	return its.report.Phase != gate.Waiting && its.report.Hold != its.number
}

// superseded reports whether the shim's container has a later shim.
func (s *leashes) superseded(its *leashed) bool {
	for _, other := range s.shims {
		if other.report.Container == its.report.Container && other.report.Began > its.report.Began {
			return true
		}
	}
	return false
}

// grant returns the next grant of the shim, if that grant is due. If no grant is due, the order has
// no number. The second result is the instant at which the next grant is due.
func (s *leashes) grant(now time.Duration, its *leashed) (o order, at time.Duration) {
	first := its.number == ""
	deadline, bounded, thawable := s.bound(now, its)
	thaws := thawable && its.report.Leap != 0 && its.report.Leap != its.answered
	step := s.budget.Deadline() / 4
	switch {
	case first && its.report.Leap != 0 && !thawable:
		return order{}, pace.Never // the loop wakes when a claim knows of the leap
	case first, thaws, its.resend:
	case bounded && deadline <= its.until:
		return order{}, pace.Never // a renewal of the hold wakes the loop
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
		return o, pace.Never
	}
	return o, its.until + step - s.budget.Deadline()
}

// bound returns the latest deadline that a grant of the shim may have now. The result "bounded"
// reports that a hold limits that deadline. The result "thawable" reports that the grant may let
// a frozen program continue.
func (s *leashes) bound(now time.Duration, its *leashed) (deadline time.Duration, bounded, thawable bool) {
	deadline, thawable = now+s.budget.Deadline(), true
	for _, of := range s.claims {
		thawable = thawable && of.Leaps >= s.leaps
		if its.number == "" || its.serial > of.upTo || of.Deadline == pace.Never {
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
func (s *leashes) missed(o order, unsent bool, now time.Duration) {
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

// tie passes the state of the claim to the leash. If the argument "join" is true, a program that
// started after the acquisition may know the hold from now on. The result is false if the grant
// of a shim may end after the hold's deadline. In this case tie requests a renewal. Until the
// renewal is stored, the agent tells no program that the program has the hold.
func (k *keeper) tie(join bool) (covered bool) {
	t := Tie{Deadline: pace.Never, Leaps: k.leaps}
	if k.hold != nil {
		t.Deadline, t.Unrenewed = k.hold.deadline, k.hold.unrenewed
	}
	covered = k.config.Leash.Tie(k.index, t, join)
	if covered || k.hold.unrenewed {
		return covered
	}
	// The deadlines of grants and renewals count from the instant of sending. The leash has
	// sent all present grants before this instant, and prolongs no tied grant beyond the hold's
	// present deadline. So a renewal that is sent from now on moves the hold's deadline past
	// all tied grants.
	k.now = k.config.Clock()
	k.leapt(k.now)
	k.renews = true
	return false
}

// untie tells the leash that the hold has ended. If a program may still work under the hold, the
// shims kill each program that may know the hold.
func (k *keeper) untie(h *hold) {
	if !h.returned && !h.owed {
		k.config.Log.Warn("a hold has ended that no program gave back", "lease", h.slot, "hold", h.number)
		k.config.Leash.Break(k.index)
		return
	}
	switch {
	case !h.owed || h.returned:
	case k.stopping:
		h.bid.done <- outcome{problem: stoppingProblem}
	default:
		k.bids = append([]*bid{h.bid}, k.bids...)
	}
	k.tie(false)
}

// The method "leapt" makes the claim renew immediately, as after a leap of the wall clock.
// Until that renewal is stored, the agent tells no program that its hold is good.
func (k *keeper) leapt(now time.Duration) {
	k.claim.Leapt(now)
	if k.hold != nil {
		k.hold.unrenewed = true
	}
}

// hearLeap reacts to the message about a leap, unless the loop has noticed the leap before.
func (k *keeper) hearLeap(now time.Duration) {
	if !k.noticed {
		k.leapt(now)
	}
	k.noticed = false
}

// learnLeap makes the claim renew its hold, because shims have reported a leap. The argument
// "leaps" is the number of such leaps so far.
func (k *keeper) learnLeap(now time.Duration, leaps int) {
	k.leapt(now)
	k.leaps = leaps
	k.tie(false)
}
