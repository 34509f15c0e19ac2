// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"fmt"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// programs is a story of pods whose programs use the local API. Programs bid for a lock, an
// election or a semaphore, or for all three, while faults happen. The invariants of safety must
// hold all the time. After the faults every bidder must hold once more. In the end all agents must
// stop sending requests.
type programs struct {
	*recovery
	trouble *trouble
	faults  *localFaults
}

// claims are the candidates from which the story of programs draws the claims of each pod.
var claims = []api.Claim{
	{Kind: api.Lock, Name: "a", Size: 1}, {Kind: api.Election, Name: "a", Size: 1}, {Kind: api.Semaphore, Name: "pool", Size: 3},
}

func newPrograms(w *world.World, draw func(*programs) func() []api.Claim) *programs {
	return newProgramsIn(w, draw, false)
}

// newProgramsIn makes the story [programs]. If "leashed" is true, shims kill the programs of lost
// holds.
func newProgramsIn(w *world.World, draw func(*programs) func() []api.Claim, leashed bool) *programs {
	all := &workloads{World: w, replicas: map[string]int{}}
	s := &programs{recovery: &recovery{workloads: all}}
	s.trouble = &trouble{workloads: all, takesLeases: engine.Chance(w.Rng, .2)}
	world.KeepLedgers(w)
	for i := range 3 {
		w.NewNode(fmt.Sprintf("node-%d", i+1))
	}
	w.NewEnroller("enroll-1")
	of := draw(s)
	for i := range 3 + w.Rng.IntN(2) {
		p := world.NewLocalPod(w, fmt.Sprintf("local-%d", i+1), w.Nodes[i%3], engine.Pick(w.Rng, durations), of())
		if leashed {
			p.Leash()
		}
		s.slots, s.longest = p.Slots(), max(s.longest, p.Duration)
	}
	if c := engine.Pick(w.Rng, of()); c.Kind != api.Election && c.Kind != api.RWLock && engine.Chance(w.Rng, .5) {
		t := anyTemplate(w, durations, "gated", 0, c.Slots(api.Workload{}))
		t.Gate, t.Inits, t.Restless = api.GateContainer, nil, 0
		t.Containers, t.Ends = []string{"app"}, engine.Between(w.Rng, time.Second, time.Minute)
		s.workloads.add(t, 0)
	}
	w.API.Latest = max(w.API.Latest, s.longest)
	if engine.Chance(w.Rng, .3) {
		s.climate = engine.Pick(w.Rng, climates(s.longest))
		w.API.Weather = s.climate
		w.Note("script", "climate %v", s.climate)
	}
	s.faults = newLocalFaults(w, s.longest)
	return s
}

// claims draws the claims that every pod of the story declares.
func (s *programs) claims() func() []api.Claim {
	of := claims
	if !engine.Chance(s.Rng, .3) {
		of = []api.Claim{engine.Pick(s.Rng, claims)}
	}
	return func() []api.Claim { return of }
}

// run plays the whole story of one seed.
func (s *programs) run() {
	for range 2 {
		if !s.disturb(engine.Between(s.Rng, time.Minute, 3*time.Minute)) {
			return
		}
		s.Do(func() {
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
		if len(s.templates) > 0 && len(s.Pods) < mostGated && engine.Chance(s.Rng, .2) {
			s.NewPod(s.templates[0], s.place())
			return
		}
		engine.Pick(s.Rng, s.trouble.troubles())()
	})
}

// mostGated bounds how many pods that claim by annotation exist at the same time.
const mostGated = 2

// proceed computes a time, and demands three things within that time. Each bidder must hold
// once more. Each pod that claims by annotation must end. Each call of an adder with an
// idempotency key must get an answer.
func (s *programs) proceed() bool {
	all := biddersOf(s.World)
	noted := func() bool {
		return slices.ContainsFunc(s.Locals, func(p *world.LocalPod) bool { return p.Adder.Note != nil })
	}
	s.Do(func() {
		for _, b := range all {
			b.Due = true
		}
	})
	bound := s.settling() + time.Duration(len(all))*(world.MostWork+s.handingOver()+5*time.Second)
	if s.Locals[0].Leashed {
		bound += s.longest + 10*time.Second // a new agent process lets the programs die, and they start again
	}
	for _, t := range s.templates {
		bound += mostGated * (2*t.Ends + s.settling() + world.MostBackOff)
	}
	due := func() []*world.Bidder {
		return slices.DeleteFunc(slices.Clone(all), func(b *world.Bidder) bool { return !b.Due })
	}
	waits := &waits{World: s.World, since: map[*world.Bidder]time.Duration{}, bound: s.settling()}
	over := func() bool {
		waits.judge()
		return len(due()) == 0 && len(s.Pods) == 0 && !noted()
	}
	if !s.Until(bound, over) {
		s.Do(func() {
			for _, b := range due() {
				s.Violate(world.Nobody, "%s has not held within %v", b.Name, bound)
			}
			if noted() {
				s.Violate(world.Counted, "an add with a key has no answer within %v", bound)
			}
			for _, p := range s.Pods {
				s.Violate(world.Nobody, "%s has not ended within %v", p.Name, bound)
			}
		})
		return false
	}
	return true
}

// fallSilent makes the programs stop their bids, and their requests about Variables. All holds end
// a little later. Then fallSilent demands that no agent sends a request.
func (s *programs) fallSilent() {
	s.Do(func() { s.Silent = true })
	sent := map[*world.LocalAgent]int{}
	// After the last call an agent watches the Leases for one more minute, by a clock that may be
	// slow. A last release may take several attempts.
	s.Pass(world.Slow(time.Minute) + s.settling())
	s.Do(func() {
		for _, p := range s.Locals {
			sent[p.Agent] = p.Agent.Total()
		}
	})
	s.Pass(3 * time.Minute)
	s.Do(func() {
		for _, p := range s.Locals {
			if n := p.Agent.Total() - sent[p.Agent]; n > 0 {
				s.Violate(apiserver.Chatter, "%s sent %d requests without a bid: in all %v", p.Agent.Where, n, p.Agent.Sent)
			}
			if slices.ContainsFunc(p.Agent.Watches(), func(o *apiserver.Watch) bool { return !o.Ended }) {
				s.Violate(apiserver.Chatter, "%s watches without a bid", p.Agent.Where)
			}
		}
	})
}

// readersClaims draws the claims of the story of readers. All pods name the same read-write lock,
// but the sizes in their claims can differ.
func readersClaims(s *programs) func() []api.Claim {
	return func() []api.Claim { return []api.Claim{{Kind: api.RWLock, Name: "c", Size: 1 + s.Rng.IntN(3)}} }
}

// jointClaims draws the claims of pods in which one call of a program bids for several claims
// together. The last claim is a read-write lock.
func jointClaims(s *programs) func() []api.Claim {
	s.Joins = true
	return func() []api.Claim {
		return []api.Claim{{Kind: api.Lock, Name: "a", Size: 1}, {Kind: api.Lock, Name: "b", Size: 1}, {Kind: api.RWLock, Name: "c", Size: 1 + s.Rng.IntN(3)}}
	}
}
