// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"fmt"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/controller"
	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// preferring is a story of a Deployment whose template prefers the pods of one zone. Nodes and pods
// come and go, applications hang, and a person applies versions that prefer another zone. The story demands
// that the slot returns to a preferred pod, and then rests there.
type preferring struct {
	*recovery
	*controller.Workload
	moves *moves
	// broken counts the hangs, since which the last pod that hung is not preferred, and the cuts of nodes. After each,
	// a preferred pod waits for longer.
	broken int
}

func newPreferring(w *world.World) *preferring {
	all := &workloads{World: w, replicas: map[string]int{}}
	for i, zone := range []string{"a", "b", engine.Pick(w.Rng, []string{"a", "b", "c"})} {
		w.NewNode(fmt.Sprintf("node-%d", i+1))
		w.Nodes[i].Zone = zone
	}
	t := anyTemplate(w, durations, "web", 3, []string{rolled})
	t.Gate, t.Inits, t.Restless, t.StandBy = api.GateContainer, nil, 0, true
	t.YieldAfter = engine.Pick(w.Rng, []time.Duration{0, 20 * time.Second})
	t.EndpointDelay = engine.Pick(w.Rng, []time.Duration{0, time.Second})
	all.add(t, 0)
	p := &preferring{recovery: &recovery{workloads: all}, Workload: controller.New(w, t, 3)}
	p.Steer(&controller.Deployment{Workload: p.Workload, Surge: 1})
	w.NewEnroller("enroll-1")
	w.API.Latest = max(w.API.Latest, all.longest)
	if t.EndpointDelay == 0 && engine.Chance(w.Rng, .6) { // a pod with ports is not Ready behind another workload's holder
		p.rivals(t)
	}
	p.moves = newMoves(all)
	p.moves.watch()
	return p
}

// rivals starts pods of another workload that compete for the same slot, and whose template prefers
// another zone.
func (p *preferring) rivals(t world.Template) {
	t.Workload = "job"
	p.add(t, 0)
	other := controller.New(p.World, t, 2)
	v := world.GoodVersion(p.Rng)
	v.Probed, v.Prefers = true, "b"
	other.Apply(v)
	other.Steer(&controller.Deployment{Workload: other, Surge: 1})
}

// version applies a good version that prefers a zone.
func (p *preferring) version(zone string) {
	v := world.GoodVersion(p.Rng)
	v.Probed, v.Prefers = true, zone
	v.Name += ", prefers zone " + zone
	p.Apply(v)
}

// run plays the story of one seed.
func (p *preferring) run() {
	p.Do(func() { p.version("a") })
	for range 2 {
		if p.Workload.Template.YieldAfter > 0 && !p.hangs() {
			return
		}
		for range 1 + p.Rng.IntN(3) {
			p.Do(p.disturb)
			if !p.Pass(engine.Between(p.Rng, time.Second, engine.Pick(p.Rng, []time.Duration{time.Minute, 8 * time.Minute}))) {
				return
			}
		}
		p.Do(p.heal)
		if !p.returns() {
			return
		}
	}
}

// hangs lets the holder hang after a while, and waits until a preferred pod would get the slot, if it had not
// hung itself.
func (p *preferring) hangs() bool {
	if !p.Pass(engine.Between(p.Rng, time.Minute, 2*time.Minute)) {
		return false
	}
	p.Do(p.hang)
	return p.Pass(world.Slow(world.Settled) + 3*time.Minute)
}

// hang lets the holder's application hang.
func (p *preferring) hang() {
	for _, c := range p.Checks.Alive {
		c.Hung = true
		p.broken++
		p.Note("script", "%s of %s hangs", c.Name, c.Pod().Name)
	}
}

// disturb lets a node, a pod or a person do something for a while.
func (p *preferring) disturb() {
	last := engine.Between(p.Rng, time.Second, 5*time.Minute)
	n, holder := engine.Pick(p.Rng, p.Nodes), p.Checks.Holder(rolled)
	if engine.Chance(p.Rng, .6) && holder != nil {
		n = holder.Pod().Node
	}
	switch k := p.Rng.IntN(6); {
	case k == 0 && n.Up:
		n.Crash()
		p.After(last, func() {
			if !n.Up {
				n.Reboot()
			}
		})
	case k == 1:
		n.Cut(true, true)
		p.broken++
		p.After(last, n.Heal)
	case k == 2:
		p.version(engine.Pick(p.Rng, []string{"a", "b", "b"}))
	case k == 3 && p.Workload.Template.YieldAfter > 0:
		p.hang()
	default:
		for _, of := range n.Pods() {
			of.Shown.Delete()
		}
	}
}

// returns demands that the slot returns to a preferred pod, and then rests.
func (p *preferring) returns() bool {
	bound := time.Duration(0)
	p.Do(func() {
		bound = sum([]part{
			{"a pod holds again", p.settling()},
			{"a rollout ends", 4 * world.Slow(world.Rest+world.Proof+world.Again+world.MostBackOff)},
			{"the holder hangs", world.Slow(rest(p.moves.most))},
			{"a preferred pod is Ready, and the holder has served", 2 * world.Slow(world.Settled)},
			{"the holder has announced its end in vain", world.Slow(world.Settled)},
			{"the application stops", p.grace + world.Left},
		})
		if p.broken > 0 {
			bound += world.Slow(world.Forget + world.Settled<<min(p.broken, 6))
		}
	})
	if !p.Until(bound, p.settled) {
		p.Do(func() { p.Violate(world.Wanders, "%v after the trouble %s is with no preferred pod", bound, rolled) })
		return false
	}
	ends := p.ends()
	if !p.Pass(world.Slow(world.Settled) + 2*time.Minute) {
		return false
	}
	p.Do(func() {
		if len(p.Checks.Ends) > ends {
			p.Violate(world.Stopped, "%s ended, and its pod is preferred", p.Checks.Ends[ends].Child.Name)
		}
	})
	return true
}

// settled reports whether the rollout has ended, and a preferred pod serves if there is one.
func (p *preferring) settled() bool {
	c := p.Checks.Holder(rolled)
	return c != nil && !c.Asked && c.Serves() && p.Complete() &&
		(c.Pod().Preferred() || !slices.ContainsFunc(p.Pods, func(other *world.Pod) bool {
			return other.Preferred() && other.Shown.Stays() && other.Revision == c.Pod().Revision
		}))
}
