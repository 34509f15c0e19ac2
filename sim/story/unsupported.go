// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// The steps below bring about rare states of the list of supporters, in which a holder must not count on the wrong
// standby. A step that does not fit the seed does nothing.

// rare returns these steps.
func (s *supported) rare() (steps []func() bool) {
	steps = append(steps, s.acquires)
	if s.replicas["web"] == 4 {
		steps = append(steps, s.unlisted)
	}
	if s.replicas["web"] > 2 {
		steps = append(steps, s.newlyListed, s.listsAgain)
	}
	if s.elector != nil && s.template().LeaseDuration < world.ElectorLease {
		steps = append(steps, s.foreign)
	}
	return steps
}

// unlisted cuts off all nodes from the API server, but for the node of a standby that is no supporter. It takes the
// slot as soon as the Lease expires, whatever the supporters promise.
func (s *supported) unlisted() bool {
	var free *world.Node
	s.Do(func() {
		c, list := s.Checks.Holder(rolled), s.list()
		for _, p := range s.Pods {
			if p.Identity() != c.Pod().Identity() && !slices.Contains(list.Names(), p.Identity()) {
				free = p.Node
			}
		}
		s.race(c, free)
		for _, n := range s.Nodes {
			if n != free {
				n.CutAPI(true, true)
			}
		}
	})
	return s.isTaken(world.Slow(s.longest), func() {})
}

// race lets only the margins keep the end of the child apart from the next child, if that comes on the given node.
func (s *supported) race(c *world.Child, next *world.Node) {
	c.Stops = -1
	if engine.Chance(s.Rng, .7) {
		for _, n := range s.Nodes {
			n.SetRate(1 - world.Skew)
		}
		next.SetRate(1 + world.Skew)
	}
}

// newlyListed restarts a supporter, or cuts it off from the holder until the list does not name it any more. As soon as
// the API server stores a list that names it anew, the holder is cut off from the API server, so it may not know that
// the list is stored, and from the supporter.
func (s *supported) newlyListed() bool {
	var c *world.Child
	var p *world.Pod
	cut := false
	s.Do(func() {
		c = s.Checks.Holder(rolled)
		p = s.pod(engine.Pick(s.Rng, s.list().Names()))
	})
	if engine.Chance(s.Rng, .5) {
		s.Do(func() {
			p.Agent().Kill()
			p.RestartAgent()
		})
	} else {
		if !s.drops(c, p) {
			return false
		}
		s.Do(s.heal)
	}
	s.Do(func() {
		old := s.list().IDs
		s.Stored = func(by string, _ bool) {
			list := s.list()
			news := slices.IndexFunc(list.IDs, func(id string) bool { return !slices.Contains(old, id) })
			if by != c.Pod().Identity() || news < 0 || len(list.IDs) < 2 {
				return
			}
			s.Stored, cut = nil, true
			n, other := c.Pod().Node, s.pod(list.Names()[news]).Node
			n.CutAPI(engine.Chance(s.Rng, .5), true)
			n.Part(other)
			s.race(c, other)
		}
	})
	fine := s.Until(world.Slow(40*s.budget.Renew), func() bool { return cut })
	s.Do(func() { s.Stored = nil })
	if !fine {
		s.Do(func() { s.Violate(world.Nobody, "the next process of a supporter supports nobody") })
		return false
	}
	return s.isTaken(world.Slow(2*s.budget.Duration+3*s.budget.Renew), func() {})
}

// drops cuts a supporter off from the holder, until the list does not name it any more.
func (s *supported) drops(c *world.Child, p *world.Pod) bool {
	s.Do(func() {
		p.Node.Part(c.Pod().Node)
		c.Pod().Node.Part(p.Node)
	})
	gone := func() bool { l := s.list(); return len(l.IDs) > 0 && !slices.Contains(l.Names(), p.Identity()) }
	if !s.Until(world.Slow(20*s.budget.Renew), gone) || !s.Pass(engine.Between(s.Rng, time.Millisecond, s.budget.Renew)) {
		s.Do(func() { s.Violate(world.Nobody, "the list still names %s: %v", p.Name, s.list().IDs) })
		return false
	}
	return true
}

// listsAgain cuts a supporter off from the holder, until the list does not name it any more. Then a person restores
// an earlier list of the same hold, and cuts off the others from the API server. The supporter must not believe the
// earlier list.
func (s *supported) listsAgain() bool {
	var c *world.Child
	var p *world.Pod
	var was api.Supporters
	s.Do(func() {
		c, was = s.Checks.Holder(rolled), s.list()
		p = s.pod(engine.Pick(s.Rng, was.Names()))
	})
	if !s.drops(c, p) {
		return false
	}
	s.Do(func() {
		for _, n := range s.Nodes {
			if n != p.Node {
				n.CutAPI(true, true)
			}
		}
		s.race(c, p.Node)
		before := engine.Chance(s.Rng, .5) // the Lease is that of an instant before all lists
		s.API.Rewrite(world.Restorer, rolled, func(l *apiserver.Lease) {
			if before {
				l.DurationSeconds = int(s.budget.Duration / time.Second)
				delete(l.Annotations, api.SupportersAnnotation)
				return
			}
			l.Annotations[api.SupportersAnnotation] = was.Text(l.Holder, l.Annotations[api.HoldAnnotation])
		})
	})
	fine := s.Pass(world.Slow(2 * s.budget.Duration))
	s.Do(s.heal)
	return fine
}

// acquires cuts off the holder's node, until a standby has sent the write that takes the slot. While that write is on
// its way, the holder asks again, and the standby must promise nothing.
func (s *supported) acquires() bool {
	sent := func() (n int) {
		for _, p := range s.Pods {
			if a := p.Agent(); a != nil {
				n += a.Sent["put "+rolled]
			}
		}
		return n
	}
	var c *world.Child
	before := 0
	s.Do(func() {
		c = s.Checks.Holder(rolled)
		c.Pod().Node.Cut(true, true)
		s.API.Store = engine.Between(s.Rng, s.budget.RequestTimeout, s.budget.Renew)
	})
	if !s.Pass(s.budget.RenewDeadline) {
		return false
	}
	s.Do(func() { before = sent() })
	if !s.Until(world.Slow(s.budget.Duration)+s.budget.Renew, func() bool { return sent() > before }) {
		s.Do(func() { s.Violate(world.Nobody, "no standby tries to take the slot of %s", c.Name) })
		return false
	}
	return s.isTaken(world.Slow(2*s.budget.Duration), func() {
		c.Pod().Node.Reconnect()
		c.Pod().Node.CutAPI(true, true)
	})
}

// inherits lets a holder of a shorter lease duration die. Whoever takes its slot reaches the API server no more after
// that write, so it never renews. The other supporters of the dead holder must wait for as long as the Lease says now.
func (s *supported) inherits() bool {
	brief := slices.IndexFunc(s.Pods, func(p *world.Pod) bool { return p.LeaseDuration < s.template().LeaseDuration })
	if brief < 0 || s.replicas["web"] == 2 || s.pod(s.Pods[brief].Identity()) == nil {
		return true
	}
	dead := s.Pods[brief]
	runs := func(p *world.Pod) func() bool {
		return func() bool { c := s.Checks.Holder(rolled); return c != nil && c.Pod() == p && !c.Asked }
	}
	s.Do(func() {
		if !runs(dead)() {
			s.API.Rewrite("a person", rolled, func(l *apiserver.Lease) {
				l.Annotations[api.YieldAnnotation] = api.Yield{Hold: l.Annotations[api.HoldAnnotation], Successor: dead.Identity()}.String()
			})
		}
	})
	if !s.Until(s.settling(), runs(dead)) || !s.gathers() || !runs(dead)() {
		return true // it may not take the slot now
	}
	var heir *world.Pod
	s.Do(func() {
		s.Stored = func(by string, _ bool) {
			if l, _ := s.API.Lease(rolled); l.Holder == by && by != dead.Identity() {
				s.Stored, heir = nil, s.pod(by)
				heir.Node.CutAPI(true, false)
			}
		}
		dead.Node.Crash()
	})
	fine := s.Until(s.settling()+world.MostStart, func() bool { return heir != nil && runs(heir)() })
	s.Do(func() { s.Stored = nil })
	if !fine {
		s.Do(func() { s.Violate(world.Nobody, "nobody runs after the death of %s", dead.Name) })
		return false
	}
	return s.isTaken(world.Slow(s.budget.Duration), func() { s.hurry(s.Checks.Holder(rolled)) })
}

// foreign lets client-go's leader election take the slot of a holder with supporters, whose list it keeps. The
// supporters must wait for as long as it says.
func (s *supported) foreign() bool {
	s.Do(func() {
		for _, n := range s.Nodes {
			n.CutAPI(true, true)
		}
		s.elector.Paused = false
	})
	takes := func() bool { l, ok := s.API.Lease(rolled); return ok && l.Holder == "elector" }
	if !s.Until(world.Slow(s.longest)+10*time.Second, takes) {
		s.Do(func() { s.Violate(world.Nobody, "the elector does not take the slot") })
		return false
	}
	s.Do(func() {
		for _, n := range s.Nodes {
			n.Reconnect()
		}
	})
	if !s.Pass(engine.Between(s.Rng, 10*time.Second, 20*time.Second)) {
		return false
	}
	// Its last renewal is perhaps 2.4 s old, and it takes 2.4 s to notice the end of the freeze.
	s.Do(s.elector.Freeze)
	fine := s.Pass(fast(world.ElectorLease) - 5500*time.Millisecond)
	s.Do(func() {
		s.elector.Thaw()
		s.heal()
	})
	return fine
}
