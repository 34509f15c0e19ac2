// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package elector

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/lease"
	"github.com/metaparticle-io/metaparticle/agent/pace"
	"github.com/metaparticle-io/metaparticle/api"
)

var (
	errConflict = errors.New("conflict")
	errMissing  = errors.New("not found")
	errRefused  = errors.New("refused")
	errTimeout  = errors.New("timeout")
	errCut      = errors.New("watch is cut")
)

// modelPod is a pod: its node's clock, its agent process, its child.
type modelPod struct {
	model *model
	name  string
	names []string
	any   bool
	// readers is the size of a read-write lock, or zero. In such a lock the first slot is the
	// intent. The field "writes" reports that the pod competes as a writer.
	readers int
	writes  bool
	self    lease.Self
	// rate is how many twelfths of a second the pod's clock counts in each second. The field
	// "skew" is the error of the wall clock. The field "boot" is the time of the pod's clock at
	// the beginning.
	rate, skew, boot time.Duration
	// fresh reports that the waiting shim is a fresh one. For such a shim, the pod competes
	// even before a new agent process has the report of the child's shim.
	fresh bool
	// frozen reports that the agent process is suspended, while the shim goes on.
	frozen bool

	link link
	// unwatched reports that the API server refuses the pod's watches.
	unwatched bool
	// reads has the link for the reads of each slot's looks, by slot. A slot without an entry has
	// the link [up].
	reads map[string]link
	claim *claim
	// processes is the number of agent processes of the pod so far.
	processes uint64
	random    modelRandom
	wake      time.Duration
	requests  []*modelRequest
	looks     []*modelLook
	sent      map[string][]time.Duration

	// waiting reports that a shim waits for a grant. The field "heard" reports that the agent
	// process has a report of the child's shim. The field "child" is the application; nil if
	// none runs.
	waiting, heard bool
	child          *modelChild
	// begun has the holds that this process began.
	begun []string
	// hold is the hold of the claim. The field "drains" is the instant at which its drain
	// began; zero before the drain.
	hold   string
	drains time.Duration
	// successor is the pod that a draining hold's releases name as the next holder.
	successor string
	// quick reports that the child stops at once in a drain. The field "leaving" reports that
	// the agent is about to end.
	quick, leaving bool
	// stored has, for each slot, the instant at which the hold's last stored write was
	// sent.
	stored map[string]time.Duration
}

// modelChild is an application that runs with the tokens of its slots until the deadline.
type modelChild struct {
	hold     string
	tokens   []api.Token
	deadline time.Duration
	writes   bool
}

// modelRandom is a random source that needs little time.
type modelRandom uint64

// Uint64 returns the next number (splitmix64).
func (r *modelRandom) Uint64() uint64 {
	*r += 0x9e3779b97f4a7c15
	z := uint64(*r)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// local returns the time of the pod's clock.
func (p *modelPod) local() time.Duration { return p.boot + p.model.now*p.rate/12 }

// The method "at" returns the instant of the model's clock at which the pod's clock shows the
// local instant.
func (p *modelPod) at(local time.Duration) time.Duration {
	if local == pace.Never {
		return pace.Never
	}
	return ((local-p.boot)*12 + p.rate - 1) / p.rate
}

// start starts an agent process, which knows nothing that an earlier process knew.
func (p *modelPod) start() {
	p.processes++
	p.random = modelRandom(p.processes*1000 + uint64(p.name[0])) //nolint:gosec // a seed
	p.claim = newClaim(Claim{Need: api.Need{Slots: p.names, Any: p.any, Readers: p.readers}, First: p.processes == 1, Self: p.self, OwnProofs: p.readers > 0, Random: &p.random}, p.local())
	p.requests, p.looks, p.begun, p.hold, p.drains = nil, nil, nil, "", 0
	p.sent, p.stored = map[string][]time.Duration{}, map[string]time.Duration{}
	p.heard = p.child == nil
	p.wake = p.local()
}

// next returns the instant of the pod's next event, by the model's clock.
func (p *modelPod) next() time.Duration {
	next := pace.Never
	if p.child != nil {
		next = p.at(p.child.deadline)
	}
	if p.frozen {
		return next
	}
	next = min(next, p.at(p.wake))
	for _, r := range p.requests {
		next = min(next, p.at(p.answerAt(r)))
	}
	for _, l := range p.looks {
		if !l.watching {
			next = min(next, p.at(l.sent+p.self.Budget.RequestTimeout))
		}
	}
	return next
}

// answerAt returns the instant at which the request is answered or given up.
func (p *modelPod) answerAt(r *modelRequest) time.Duration {
	if r.arrived && !r.lost {
		return min(r.answerAt, r.sent+p.self.Budget.RequestTimeout)
	}
	return r.sent + p.self.Budget.RequestTimeout
}

// pass lets the due events of the pod happen.
func (p *modelPod) pass() {
	now := p.local()
	died := p.child != nil && now >= p.child.deadline
	if died {
		p.die("at its deadline")
	}
	if p.frozen {
		return
	}
	due := died || slices.ContainsFunc(p.requests, func(r *modelRequest) bool { return now >= p.answerAt(r) }) ||
		slices.ContainsFunc(p.looks, func(l *modelLook) bool { return !l.watching && now >= l.sent+p.self.Budget.RequestTimeout })
	if due {
		p.answerDue(now)
	}
	if due || now >= p.wake {
		p.step()
	}
	p.model.settle()
}

// answerDue answers the requests that are due, and gives up those without an answer in
// time.
func (p *modelPod) answerDue(now time.Duration) {
	for _, r := range slices.Clone(p.requests) {
		if now < p.answerAt(r) {
			continue
		}
		answer := r.answer
		if !r.arrived || r.lost || now >= r.sent+p.self.Budget.RequestTimeout {
			answer = Answer{Err: errTimeout}
		}
		if !r.arrived && p.link == astray && r.action.Kind != Read {
			at := p.model.now + pauses[p.model.script.choose(len(pauses))]
			p.model.strays = append(p.model.strays, stray{at: at, pod: p, process: p.processes, request: r})
		}
		p.answered(r, answer)
	}
	for _, l := range slices.Clone(p.looks) {
		if !l.watching && now >= l.sent+p.self.Budget.RequestTimeout {
			p.endLook(l, Answer{Err: errTimeout})
		}
	}
}

// die ends the child, and notes why.
func (p *modelPod) die(why string) {
	p.model.note("%s: child of %s dies %s", p.name, p.child.hold, why)
	p.child = nil
}

// lease returns the Lease of the given name.
func (p *modelPod) lease(name string) *modelLease {
	number, _ := strconv.Atoi(strings.TrimPrefix(name, "slot-"))
	return p.model.leases[number]
}

func outcomes(c *claim, proven func(hold string) bool) map[string]Outcome {
	all := map[string]Outcome{}
	for _, hold := range c.Holds() {
		all[hold] = Outcome{Proven: proven(hold)}
	}
	return all
}

// programFacts returns the facts of an agent process that serves a program. That process knows
// nothing about a child that an earlier process started.
func (p *modelPod) programFacts() Facts {
	own := p.child != nil && slices.Contains(p.begun, p.child.hold)
	return Facts{
		Wall:    p.model.began.Add(p.model.now + p.skew),
		Compete: p.waiting && !p.leaving && !own, Alive: own, Writes: p.writes,
		Outcomes: outcomes(p.claim, func(hold string) bool {
			return slices.Contains(p.begun, hold) && (p.child == nil || p.child.hold != hold)
		}),
		Renew: own, Guard: p.drains == 0,
	}
}

// facts returns the facts that the agent process passes to its claim.
func (p *modelPod) facts() Facts {
	if p.readers > 0 {
		return p.programFacts()
	}
	alive := p.child != nil && p.heard
	f := Facts{
		Wall:    p.model.began.Add(p.model.now + p.skew),
		Compete: p.waiting && !p.leaving && (p.heard || p.fresh), Alive: alive,
		Outcomes: outcomes(p.claim, p.proven), Profile: lease.Profile{Workload: "w"},
		Renew: p.child != nil, Guard: p.drains == 0,
	}
	if alive {
		f.Children = []Child{{Hold: p.child.hold, Tokens: p.child.tokens}}
	}
	return f
}

// proven reports whether the agent process knows that no child of the hold is alive. Before the
// report of the child's shim, a process knows this only of its own holds.
func (p *modelPod) proven(hold string) bool {
	if p.child != nil && p.child.hold == hold {
		return false
	}
	return p.heard || slices.Contains(p.begun, hold)
}

// step lets the agent decide until it has nothing more to do at this instant.
func (p *modelPod) step() {
	for range 20 {
		p.keep()
		actions, wake := p.claim.next(p.local(), p.facts())
		for _, a := range actions {
			p.execute(a)
		}
		p.wake = wake
		switch state := p.claim.State(); {
		case state.Stage == Held && p.hold != state.Hold:
		case state.Stage == Done:
			p.wake = pace.Never
			return
		case wake > p.local():
			return
		}
	}
	p.model.violate("%s: the claim decides twenty times at one instant", p.name)
}

// keep does what an agent does while its claim is held: grant, extend, drain, or let go.
func (p *modelPod) keep() {
	s, now := p.claim.State(), p.local()
	if s.Stage != Held {
		return
	}
	if p.hold != s.Hold {
		p.begin(s)
	}
	p.judge(s)
	switch {
	case p.drains != 0 && (p.child == nil || now >= s.Deadline):
		p.letGo(p.child == nil && s.Lost == nil)
	case s.Taken:
		if p.child != nil {
			p.die("as its slot is taken")
		}
		p.letGo(false)
	case p.drains != 0:
	case s.Lost != nil || now >= s.DrainAt:
		p.drain()
		if p.child == nil {
			p.letGo(s.Lost == nil)
		}
	case s.Paused.Pause == api.PauseStop || s.Yield.Hold != "":
		p.heed(s)
	case p.child == nil && p.waiting && !p.leaving && now < s.Deadline:
		p.child = &modelChild{hold: s.Hold, tokens: s.Tokens, deadline: s.Deadline, writes: s.Writes}
		p.run(s)
	case p.child == nil:
		p.letGo(true)
	default:
		p.child.deadline = s.Deadline
	}
}

func (p *modelPod) begin(s State) {
	p.model.note("%s: holds %s, %v, until %v", p.name, s.Hold, s.Tokens, s.Deadline)
	p.hold, p.drains = s.Hold, 0
	if p.child != nil && p.child.hold != s.Hold {
		p.model.violate("%s holds %s beside a child of %s", p.name, s.Hold, p.child.hold)
	}
	for _, t := range s.Tokens {
		l := p.lease(t.Slot)
		token, _ := strconv.Atoi(t.Token)
		if token < l.token {
			p.model.violate("%s: token %d of %s, after %d", p.name, token, t.Slot, l.token)
		}
		l.token = token
	}
	if p.readers > 0 {
		p.beginReadWrite(s)
	} else if need := len(p.names); p.any && len(s.Tokens) != 1 || !p.any && len(s.Tokens) != need {
		p.model.violate("%s holds %v", p.name, s.Tokens)
	}
}

// judge checks that the claim's deadline is not too late: at most [api.Budget]'s Deadline after the
// last stored write of each slot was sent.
func (p *modelPod) judge(s State) {
	for _, t := range s.Tokens {
		if most := p.stored[t.Slot] + p.self.Budget.Deadline(); s.Deadline > most {
			p.model.violate("%s: the deadline is %v, but %s was renewed for %v at most", p.name, s.Deadline, t.Slot, most)
		}
	}
}

// run checks, when a child of the pod begins, that no living child of another pod has a token of
// the same slot. A child that writes must be the only living child.
func (p *modelPod) run(s State) {
	for _, o := range p.model.pods {
		if o == p || o.child == nil || o.local() >= o.child.deadline {
			continue
		}
		if s.Writes || o.child.writes {
			p.model.violate("%s and %s run, and one of them writes", p.name, o.name)
		}
		for _, t := range s.Tokens {
			if slices.ContainsFunc(o.child.tokens, func(u api.Token) bool { return u.Slot == t.Slot }) {
				p.model.violate("%s and %s run under %s", p.name, o.name, t.Slot)
			}
		}
	}
}

func (p *modelPod) drain() {
	p.model.note("%s: drains %s", p.name, p.hold)
	p.drains = p.local()
	if p.child != nil && p.quick {
		p.die("soon")
	}
}

// heed begins the drain that a person's pause or request to yield causes. Without a child the hold
// ends at once. If the request names a hold other than that of the claim, heed notes a violation.
func (p *modelPod) heed(s State) {
	if s.Yield.Hold != "" && s.Yield.Hold != s.Hold {
		p.model.violate("%s yields %s for %s", p.name, s.Hold, s.Yield.Hold)
	}
	p.successor = s.Yield.Successor
	p.drain()
	if p.child == nil {
		p.letGo(true)
	}
}

func (p *modelPod) letGo(giveBack bool) {
	p.model.note("%s: lets go of %s, for %q", p.name, p.hold, p.successor)
	p.claim.LetGo(p.local(), Parting{GiveBack: giveBack, HeadStart: p.self.Budget.Retry, Successor: p.successor})
	p.hold, p.drains, p.successor = "", 0, ""
	clear(p.stored)
}
