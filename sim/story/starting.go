// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"fmt"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// starting is a story of pods with a start lock. In some worlds the pods also claim a lock,
// which they hold for life. The invariants of safety must hold all the time. After the faults every
// pod that is able to start must have started, and the start lock must be free.
type starting struct {
	*recovery
	trouble *trouble
}

func newStarting(w *world.World) *starting {
	all := &workloads{World: w, replicas: map[string]int{}}
	s := &starting{recovery: &recovery{workloads: all}}
	for i := range 3 {
		w.NewNode(fmt.Sprintf("node-%d", i+1))
	}
	slots := []string{world.StartSlot}
	if engine.Chance(w.Rng, .4) {
		slots = []string{api.LockLease("a"), world.StartSlot}
	}
	t := anyTemplate(w, durations, "web", 0, slots)
	t.Gate, t.Inits = api.GateContainer, nil
	t.Behaviour = world.Behaviour{Name: "starts", Starts: engine.Between(w.Rng, 100*time.Millisecond, 20*time.Second), Probed: true}
	all.add(t, 2+w.Rng.IntN(4))
	w.NewEnroller("enroll-1")
	w.API.Latest = max(w.API.Latest, s.longest)
	s.trouble = &trouble{workloads: all}
	return s
}

// run plays the story of one seed.
func (s *starting) run() {
	if !s.started("the start") {
		return
	}
	for range 3 {
		if !disturbFor(s.World, engine.Between(s.Rng, 30*time.Second, 2*time.Minute), 10*time.Second, s.trouble.strike) {
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

// started demands that all pods have started in time. In the quiet time that follows, no child may
// stop. In that time a pod may send only the renewals of a slot that the pod holds for life.
func (s *starting) started(after string) bool {
	bound := s.lasting()
	for end := s.Now() + bound; ; {
		if !s.Until(end-s.Now(), s.over) {
			s.Do(func() { s.Violate(world.Nobody, "%v after %s a pod has not started", bound, after) })
			return false
		}
		ends := s.ends()
		if !s.Pass(world.Slow(s.longest) + s.grace + world.Left + 5*time.Second) {
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
	one := t.Behaviour.Starts + world.Slow(t.LeaseDuration) + s.handingOver() + world.MostBackOff + 5*time.Second
	return s.settling() + time.Duration(s.replicas[t.Workload]+1)*one
}

// over reports whether the start lock is free, and all pods that can start have started.
func (s *starting) over() bool {
	l, ok := s.API.Lease(world.StartSlot)
	return ok && l.Holder == "" && !slices.ContainsFunc(s.slots, func(slot string) bool { return slot != world.StartSlot && s.stuck(slot) }) &&
		!slices.ContainsFunc(s.Pods, func(p *world.Pod) bool { return p.StartsOnly() && p.Healthy() && !s.serves(p) })
}

// serves reports whether each container of the pod has a child that serves.
func (s *starting) serves(p *world.Pod) bool {
	n := 0
	for _, c := range s.Checks.Alive {
		if c.Pod() == p && !c.Asked && c.Current() && p.Behaviour.Serves(s.Now()-c.Began) {
			n++
		}
	}
	return n == len(p.Containers)
}
