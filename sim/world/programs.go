// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// programs is a story of pods whose programs use the local API. Programs bid for one lock, one
// election and one semaphore, while faults happen. The invariants of safety must hold all the time.
// After the faults every bidder must hold once more. In the end all agents must stop sending
// requests.
type programs struct {
	*recovery
	trouble *trouble
	faults  *localFaults
}

// claims are the candidates from which the story of programs draws the claims of each pod.
var claims = []api.Claim{
	{Kind: api.Lock, Name: "a", Size: 1}, {Kind: api.Election, Name: "a", Size: 1}, {Kind: api.Semaphore, Name: "pool", Size: 3},
}

func newPrograms(w *World, draw func(*programs) func() []api.Claim) *programs {
	return newProgramsIn(w, draw, false)
}

// newProgramsIn makes the story. If leashed is true, shims kill the programs of lost holds.
func newProgramsIn(w *World, draw func(*programs) func() []api.Claim, leashed bool) *programs {
	all := &workloads{World: w, replicas: map[string]int{}}
	s := &programs{recovery: &recovery{workloads: all}}
	s.trouble = &trouble{workloads: all, takesLeases: chance(w.rng, .2)}
	w.variables = newVariables(w)
	for i := range 3 {
		w.newNode(fmt.Sprintf("node-%d", i+1))
	}
	of := draw(s)
	for i := range 3 + w.rng.IntN(2) {
		p := newLocalPod(w, fmt.Sprintf("local-%d", i+1), w.nodes[i%3], pick(w.rng, durations), of())
		if leashed {
			p.leash()
		}
		s.slots, s.longest = p.slots(), max(s.longest, p.duration)
	}
	if c := pick(w.rng, of()); c.Kind != api.Election && c.Kind != api.RWLock && chance(w.rng, .5) {
		t := anyTemplate(w, durations, "gated", 0, c.Slots(api.Workload{}))
		t.gate, t.inits, t.restless = api.GateContainer, nil, 0
		t.containers, t.ends = []string{"app"}, between(w.rng, time.Second, time.Minute)
		s.workloads.add(t, 0)
	}
	w.newEnroller("enroll-1")
	w.latest = max(w.latest, s.longest)
	if chance(w.rng, .3) {
		s.climate = pick(w.rng, climates(s.longest))
		w.weather = s.climate
		w.note("script", "climate %+v", s.climate)
	}
	s.faults = newLocalFaults(w, s.longest)
	return s
}

// claims draws the claims that every pod of the story declares.
func (s *programs) claims() func() []api.Claim {
	of := claims
	if !chance(s.rng, .3) {
		of = []api.Claim{pick(s.rng, claims)}
	}
	return func() []api.Claim { return of }
}

// run plays the whole story of one seed.
func (s *programs) run() {
	for range 2 {
		if !s.disturb(between(s.rng, time.Minute, 3*time.Minute)) {
			return
		}
		s.do(func() {
			s.heal()
			s.killStopped()
			s.faults.recover()
		})
		if !s.proceed() {
			return
		}
	}
	s.fallSilent()
}

// disturb causes faults for the time in the argument "last". After a violation the function returns
// false.
func (s *programs) disturb(last time.Duration) bool {
	return disturbFor(s.World, last, 20*time.Second, func() {
		if len(s.templates) > 0 && len(s.pods) < mostGated && chance(s.rng, .2) {
			s.newPod(s.templates[0], s.place())
			return
		}
		pick(s.rng, s.trouble.troubles())()
	})
}

// mostGated bounds how many pods that claim by annotation exist at the same time.
const mostGated = 2

// proceed demands that each bidder holds once more within the bound, and that each pod that claims
// by annotation ends. Within the bound, each add with an idempotency key must also get an answer.
func (s *programs) proceed() bool {
	all := s.bidders()
	noted := func() bool {
		return slices.ContainsFunc(s.locals, func(p *localPod) bool { return p.adder.note != nil })
	}
	s.do(func() {
		for _, b := range all {
			b.due = true
		}
	})
	bound := s.settling() + time.Duration(len(all))*(mostWork+s.handingOver()+5*time.Second)
	if s.locals[0].leashed {
		bound += s.longest + 10*time.Second // a new agent process lets the programs die, and they start again
	}
	for _, t := range s.templates {
		bound += mostGated * (2*t.ends + s.settling() + mostBackOff)
	}
	due := func() []*bidder { return slices.DeleteFunc(slices.Clone(all), func(b *bidder) bool { return !b.due }) }
	waits := &waits{programs: s, since: map[*bidder]time.Duration{}, bound: s.settling()}
	over := func() bool {
		waits.judge()
		return len(due()) == 0 && len(s.pods) == 0 && !noted()
	}
	if !s.until(bound, over) {
		s.do(func() {
			for _, b := range due() {
				s.violate(nobody, "%s has not held within %v", b.name, bound)
			}
			if noted() {
				s.violate(counted, "an add with a key has no answer within %v", bound)
			}
			for _, p := range s.pods {
				s.violate(nobody, "%s has not ended within %v", p.name, bound)
			}
		})
		return false
	}
	return true
}

// bidders returns the bidders of all pods.
func (s *programs) bidders() (all []*bidder) {
	for _, p := range s.locals {
		all = append(all, p.bidders...)
	}
	return all
}

// fallSilent lets programs make no more bids, and send no more requests about Variables. All holds
// end a little later. Then fallSilent demands that no agent sends a request.
func (s *programs) fallSilent() {
	s.do(func() { s.silent = true })
	sent := map[*localAgent]int{}
	// After the last call an agent watches the Leases for a minute more, by a clock that may be
	// slow. A last release may take several attempts.
	s.pass(slow(time.Minute) + s.settling())
	s.do(func() {
		for _, p := range s.locals {
			sent[p.agent] = p.agent.total()
		}
	})
	s.pass(3 * time.Minute)
	s.do(func() {
		for _, p := range s.locals {
			if n := p.agent.total() - sent[p.agent]; n > 0 {
				s.violate(chatter, "%s sent %d requests without a bid: in all %v", p.agent.where, n, p.agent.sent)
			}
			if slices.ContainsFunc(s.api.watches, func(o *watch) bool { return o.c == p.agent.clientOf && !o.ended }) {
				s.violate(chatter, "%s watches without a bid", p.agent.where)
			}
		}
	})
}
