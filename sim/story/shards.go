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

// sharding is a story of one workload whose number of shards changes while faults happen. The
// invariants of safety must hold all the time. Two pods never run under one shard. Pods for two
// numbers of shards never run at once. After the faults, and after each change, an application must
// run under each shard that a pod can take.
type sharding struct {
	*chaos
	// numbers are the numbers of shards that the template gets, one after the other.
	numbers []int
	made    int // how often the template has got another number of shards
}

// shardedWorkload is the workload with shards.
var shardedWorkload = api.Workload{Group: "apps", Kind: "Deployment", Name: "web"}

// slotsOfShards returns the Leases of the shards of a workload. The argument "count" is the number
// of these shards.
func slotsOfShards(count int) []string {
	slots := api.Claim{Kind: api.Shards, Size: count}.Slots(shardedWorkload)
	slices.Sort(slots)
	return slots
}

func newSharding(w *world.World) *sharding {
	all := &workloads{World: w, replicas: map[string]int{}}
	s := &sharding{chaos: &chaos{recovery: &recovery{workloads: all}}}
	takesLeases := engine.Chance(w.Rng, .2)
	takesRoles := !takesLeases && engine.Chance(w.Rng, .2)
	for i := range 3 {
		w.NewNode(fmt.Sprintf("node-%d", i+1))
	}
	for len(s.numbers) < 3 {
		if n := 1 + w.Rng.IntN(4); !slices.Contains(s.numbers, n) {
			s.numbers = append(s.numbers, n)
		}
	}
	t := anyTemplate(w, durations, "web", 2, slotsOfShards(s.numbers[0]))
	t.Gate, t.Shards, t.Any = api.GateContainer, s.numbers[0], s.numbers[0] > 1
	w.Sharded = t.Shards
	all.add(t, 2+w.Rng.IntN(4))
	all.slots = slotsOfShards(slices.Max(s.numbers))
	w.NewEnroller("enroll-1")
	if engine.Chance(w.Rng, .5) {
		w.NewEnroller("enroll-2")
	}
	w.API.Latest = max(w.API.Latest, all.longest)
	if engine.Chance(w.Rng, .3) {
		s.climate = engine.Pick(w.Rng, climates(all.longest))
		w.API.Weather = s.climate
		w.Note("script", "climate %v", s.climate)
	}
	s.trouble = &trouble{workloads: all, takesLeases: takesLeases, takesRoles: takesRoles}
	return s
}

// run plays the story of one seed.
func (s *sharding) run() {
	if !s.quiet("the start") {
		return
	}
	for range 2 {
		if !disturbFor(s.World, engine.Between(s.Rng, 60*time.Second, 150*time.Second), 8*time.Second, s.disturbChange) {
			return
		}
		s.Do(s.recover)
		if !s.quiet("the trouble") || !s.rollsOut() {
			return
		}
	}
	s.parade()
}

// disturbChange causes a fault, or a step of a change of the number of shards.
func (s *sharding) disturbChange() {
	switch n := s.Rng.IntN(10); {
	case n == 0:
		s.change()
	case n < 3:
		s.replace()
	case n == 3:
		s.confuse()
	case n == 4:
		s.strand()
	default:
		s.trouble.strike()
	}
}

// strand changes the number of shards while a holder is out of reach. Either the holder's machine
// is paused, or that machine is cut off. In the second case a person deletes all pods by force. The
// person also deletes the Lease of the holder's shard, which is beyond the new number.
func (s *sharding) strand() {
	i := slices.IndexFunc(s.Checks.Alive, func(c *world.Child) bool {
		return c.Pod().Shards == s.Sharded && c.Pod().Healthy() && !c.Pod().Node.Paused
	})
	if i < 0 {
		return
	}
	stranded := s.Checks.Alive[i]
	n, last := stranded.Pod().Node, engine.Between(s.Rng, s.longest/4, 2*s.longest)
	_, shard, _ := api.ReadShard(stranded.Slots[0].Slot)
	fewer := slices.IndexFunc(s.numbers, func(number int) bool { return number <= shard })
	if fewer < 0 || !s.trouble.takesLeases {
		s.Note("script", "%s is paused during a change", n.Name)
		n.Pause()
		s.After(last, n.Unpause)
		s.change()
		return
	}
	s.Note("script", "%s is lost with its Lease", stranded.Name)
	n.Cut(true, true)
	s.After(last, func() { n.CutOut, n.CutIn = false, false; s.Note(n.Name, "is connected again") })
	for _, p := range slices.Clone(s.Pods) {
		if p.Object && !p.Stopping {
			p.Forget()
			s.After(last, p.Stop)
		}
	}
	engine.Must(s.API.Remove("somebody", "Lease", stranded.Slots[0].Slot, "", ""))
	t := s.templates[0]
	t.Shards = s.numbers[fewer]
	t.Slots, t.Any = slotsOfShards(t.Shards), t.Shards > 1
	s.become(t)
	s.refill()
}

// recover ends all faults, and the rollout: all pods then have the present number of shards.
func (s *sharding) recover() {
	for _, e := range s.Enrolls {
		e.Believes = 0
	}
	for _, p := range slices.Clone(s.Pods) {
		if p.Shards != s.Sharded && p.Object && !p.Stopping {
			p.Stop()
		}
	}
	s.heal()
	for _, e := range s.Enrolls {
		e.Nudge()
	}
}

// rollsOut changes the number of shards in quiet times, by a rolling update. Then an application
// must run under each of the new shards, although pods with the old number of shards are left. In
// some rollouts a person undoes the change in the middle.
func (s *sharding) rollsOut() bool {
	undone := engine.Chance(s.Rng, .3)
	s.Do(func() {
		before := s.templates[0]
		s.change()
		if undone {
			s.After(engine.Between(s.Rng, time.Millisecond, 10*time.Second), func() { s.become(before) })
		}
	})
	if !s.Pass(10 * time.Second) {
		return false
	}
	for s.old() != nil {
		s.Do(s.replace)
		if !s.quietly("a part of a rollout") {
			return false
		}
	}
	s.Do(s.refill)
	return s.quiet("a rollout")
}

// quietly demands that in time an application runs under each shard that a pod with the present
// number of shards can take.
func (s *sharding) quietly(after string) bool {
	bound := s.settling()
	if !s.Until(bound, s.inUse) {
		s.Do(func() { s.stuckSlots(after, bound) })
		return false
	}
	return true
}

// change gives the template the next number of shards, and usually starts one pod with that number.
func (s *sharding) change() {
	s.made++
	t := s.templates[0]
	t.Shards = s.numbers[s.made%len(s.numbers)]
	t.Slots, t.Any = slotsOfShards(t.Shards), t.Shards > 1
	s.become(t)
}

// become replaces the template of the workload. If the workload has fewer than eight pods, the
// method starts one pod of the new template.
func (s *sharding) become(t world.Template) {
	s.Note("script", "%d shards instead of %d", t.Shards, s.Sharded)
	s.templates[0], s.Sharded = t, t.Shards
	if s.count(t.Workload) < 8 {
		s.NewPod(t, s.place())
	}
	for _, e := range s.Enrolls {
		e.Nudge()
	}
}

// old returns a pod whose number of shards differs from the present number; nil if no such pod
// exists.
func (s *sharding) old() *world.Pod {
	i := slices.IndexFunc(s.Pods, func(p *world.Pod) bool { return p.Shards != s.Sharded && p.Object && !p.Stopping })
	if i < 0 {
		return nil
	}
	return s.Pods[i]
}

// replace stops a pod whose number of shards differs from the present number, and starts a pod with
// the present number.
func (s *sharding) replace() {
	if old := s.old(); old != nil {
		old.Stop()
		if s.count(old.Workload) < s.replicas[old.Workload] {
			s.NewPod(s.templates[0], s.place())
		}
	}
}

// confuse makes a process of enroll assume a random number of shards for a while.
func (s *sharding) confuse() {
	if len(s.Enrolls) == 0 {
		return
	}
	e, n := engine.Pick(s.Rng, s.Enrolls), engine.Pick(s.Rng, s.numbers)
	s.Note(e.Name, "believes in %d shards", n)
	e.Believes = n
	e.Nudge()
	s.After(engine.Between(s.Rng, 100*time.Millisecond, 800*time.Millisecond), func() { e.Believes = 0; e.Nudge() })
}
