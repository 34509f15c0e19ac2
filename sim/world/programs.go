// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// programs is a story of pods whose programs use the local API. Programs bid for one lock, one
// election and one semaphore, in the middle of trouble. The invariants of safety count all the
// time. After each trouble every bidder must hold once more.
type programs struct {
	*recovery
	trouble *trouble
	// random is the source of the faults of agents and programs.
	random *rand.Rand
}

// claims are the claims that the pods of the story declare.
var claims = []api.Claim{
	{Kind: api.Lock, Name: "a", Size: 1}, {Kind: api.Election, Name: "a", Size: 1}, {Kind: api.Semaphore, Name: "pool", Size: 3},
}

func newPrograms(w *World) *programs {
	all := &workloads{World: w, replicas: map[string]int{}}
	s := &programs{recovery: &recovery{workloads: all}, random: w.source("programs")}
	s.trouble = &trouble{workloads: all, takesLeases: chance(w.rng, .2)}
	for i := range 3 {
		w.newNode(fmt.Sprintf("node-%d", i+1))
	}
	s.longest = pick(w.rng, durations)
	of := s.claims()
	for i := range 3 + w.rng.IntN(2) {
		p := newLocalPod(w, fmt.Sprintf("local-%d", i+1), w.nodes[i%3], s.longest, of)
		s.slots = p.slots()
	}
	w.newEnroller("enroll-1")
	w.latest = max(w.latest, s.longest)
	return s
}

// claims draws the claims of all pods.
func (s *programs) claims() []api.Claim {
	if chance(s.rng, .3) {
		return claims
	}
	return []api.Claim{pick(s.rng, claims)}
}

// run plays the whole story of one seed.
func (s *programs) run() {
	s.do(func() { s.calm = false })
	s.pass(2 * time.Minute)
	s.do(func() { s.calm = true })
	s.proceed()
}

// proceed demands that each bidder holds once more within the bound.
func (s *programs) proceed() bool {
	bidders := 0
	s.do(func() {
		for _, p := range s.locals {
			for _, b := range p.bidders {
				b.due = true
				bidders++
			}
		}
	})
	bound := s.settling() + time.Duration(bidders)*(mostWork+s.handingOver()+5*time.Second)
	if !s.until(bound, func() bool { return s.due() == nil }) {
		s.do(func() { s.violate(nobody, "%s has not held within %v", s.due().name, bound) })
		return false
	}
	return true
}

// due returns a bidder that is to hold once more; nil for none.
func (s *programs) due() *bidder {
	for _, p := range s.locals {
		if i := slices.IndexFunc(p.bidders, func(b *bidder) bool { return b.due }); i >= 0 {
			return p.bidders[i]
		}
	}
	return nil
}
