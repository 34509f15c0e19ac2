// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// starting is a story of pods with a start lock. In some worlds the pods also claim a lock,
// which they hold for life. The invariants of safety must hold all the time. After the faults every
// pod that is able to start must have started, and the start lock must be free.
type starting struct {
	*recovery
	trouble *trouble
}

func newStarting(w *World) *starting {
	all := &workloads{World: w, replicas: map[string]int{}}
	s := &starting{recovery: &recovery{workloads: all}}
	for i := range 3 {
		w.newNode(fmt.Sprintf("node-%d", i+1))
	}
	slots := []string{startSlot}
	if engine.Chance(w.Rng, .4) {
		slots = []string{api.LockLease("a"), startSlot}
	}
	t := anyTemplate(w, durations, "web", 0, slots)
	t.gate, t.inits = api.GateContainer, nil
	t.behaviour = behaviour{name: "starts", starts: engine.Between(w.Rng, 100*time.Millisecond, 20*time.Second), probed: true}
	all.add(t, 2+w.Rng.IntN(4))
	w.newEnroller("enroll-1")
	w.api.Latest = max(w.api.Latest, s.longest)
	s.trouble = &trouble{workloads: all}
	return s
}

// run plays the story of one seed.
func (s *starting) run() {
	if !s.started("the start") {
		return
	}
	for range 3 {
		if !disturbFor(s.World, engine.Between(s.Rng, 30*time.Second, 2*time.Minute), 10*time.Second, s.trouble.one) {
			return
		}
		s.Do(func() {
			s.heal()
			s.killStopped()
		})
		if !s.started("the trouble") {
			return
		}
	}
}

// started demands that all pods have started in time. After that a pod may send a request only
// for a slot that it holds for life.
func (s *starting) started(after string) bool {
	bound := s.lasting()
	for end := s.Now() + bound; ; {
		if !s.Until(end-s.Now(), s.over) {
			s.Do(func() { s.Violate(nobody, "%v after %s a pod has not started", bound, after) })
			return false
		}
		ends := s.ends()
		if !s.Pass(slow(s.longest) + s.grace + left + 5*time.Second) {
			return false
		}
		if s.ends() == ends || s.Now() > end {
			return s.steady(20 * time.Second)
		}
	}
}

// lasting bounds the time until every pod has started, one after the other.
func (s *starting) lasting() time.Duration {
	t := s.templates[0]
	one := t.behaviour.starts + slow(t.duration) + s.handingOver() + mostBackOff + 5*time.Second
	return s.settling() + time.Duration(s.replicas[t.workload]+1)*one
}

// over reports whether all starts are over.
func (s *starting) over() bool {
	l, ok := s.api.Lease(startSlot)
	return ok && l.Holder == "" && !slices.ContainsFunc(s.slots, func(slot string) bool { return slot != startSlot && s.stuck(slot) }) &&
		!slices.ContainsFunc(s.pods, func(p *pod) bool { return p.startsOnly() && p.healthy() && !s.serves(p) })
}

// serves reports whether each container of the pod has a child that serves.
func (s *starting) serves(p *pod) bool {
	n := 0
	for _, c := range s.checks.alive {
		if c.pod() == p && !c.asked && c.current() && p.behaviour.serves(s.Now()-c.began) {
			n++
		}
	}
	return n == len(p.containers)
}
