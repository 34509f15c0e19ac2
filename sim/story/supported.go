// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// supported is a story of an application that survives outages of the API server because its standbys promise not to
// take its slot meanwhile. In return a supporter takes the slot of a dead holder as soon as after an ordinary lease,
// and that of a holder which alone does not reach the API server a little later.
type supported struct {
	*riding
	budget api.Budget // of the lease duration
}

func newSupported(w *world.World) *supported {
	r, t, replicas := newRide(w, []int{2, 2, 3, 3, 4})
	w.NewNode("node-4")
	r.templates, r.replicas[t.Workload], r.slots = []world.Template{t}, replicas, t.Slots
	r.longest, r.grace = t.Stated(), t.Grace
	if brief := t; engine.Chance(w.Rng, .3) { // as after a change of the lease duration
		brief.LeaseDuration = (t.LeaseDuration * 2 / 3).Truncate(time.Second)
		if brief.LeaseDuration >= api.MinLeaseDuration {
			w.NewPod(brief, w.Nodes[0])
		}
	}
	r.refill() // one pod on each node
	w.NewEnroller("enroll-1")
	brief := *r.workloads
	brief.longest = 2 * t.LeaseDuration // the longest fault of a round lasts for twice as long
	r.trouble = &trouble{workloads: &brief, takesLeases: engine.Chance(w.Rng, .3)}
	if engine.Chance(w.Rng, .3) {
		r.elector = w.NewElector("elector", rolled)
		r.elector.Paused = true
		r.trouble.elector = r.elector
	}
	return &supported{riding: r, budget: world.BudgetOf(t.LeaseDuration)}
}

// run plays the story of one seed.
func (s *supported) run() {
	if !s.serves("the start") {
		return
	}
	steps := []func() bool{s.outlasts, s.dies, s.dies, s.isCutOff, s.isCutOff, s.parts, s.lapses}
	steps = append(steps, s.rare()...)
	for kind := range outages {
		steps = append(steps, func() bool { return s.ridesOn(kind) })
	}
	s.Rng.Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
	for _, step := range append([]func() bool{s.inherits}, steps...) { // the first pods have the shorter duration
		if !s.gathers() || !step() || !s.serves("an outage") {
			return
		}
	}
	for range 3 {
		if !s.suffers() || !s.serves("the trouble") {
			return
		}
	}
	s.Do(func() { s.Checks.Holder(rolled).Pod().Stop() })
	if s.serves("the end of the holder") {
		s.gathers() // the supporters have survived all that
	}
}

// list returns the supporters in the Lease.
func (s *supported) list() api.Supporters {
	l, ok := s.API.Lease(rolled)
	if !ok {
		return api.Supporters{}
	}
	return world.SupportersOf(l)
}

// gathers waits until as many standbys as possible support the holder. A supporter that is gone keeps its place for
// twelve renewals.
func (s *supported) gathers() bool {
	s.Do(s.refill)
	want := min(api.MostSupporters, s.replicas["web"]-1)
	bound := world.Slow(20*s.budget.Renew) + 10*time.Second
	living := func() bool {
		list := s.list()
		return len(list.IDs) == want && !slices.ContainsFunc(list.Names(), func(identity string) bool { return s.pod(identity) == nil })
	}
	if !s.Until(bound, living) {
		s.Do(func() {
			s.Violate(world.Nobody, "%v after it serves the holder has only these supporters: %v", bound, s.list().IDs)
		})
		return false
	}
	return s.Pass(engine.Between(s.Rng, 0, 2*s.budget.Renew))
}

// pod returns the healthy pod with the identity; nil for none.
func (s *supported) pod(identity string) *world.Pod {
	i := slices.IndexFunc(s.Pods, func(p *world.Pod) bool { return p.Identity() == identity && p.Healthy() && p.Agent() != nil })
	if i < 0 {
		return nil
	}
	return s.Pods[i]
}

// ridesOn causes an outage of the kind that the application must survive. Some messages between the agents are lost.
func (s *supported) ridesOn(kind int) bool {
	s.Do(func() { s.Channel.Lost = engine.Pick(s.Rng, []float64{0, .05}) })
	defer s.Do(func() { s.Channel.Lost = 0 })
	return s.rideOut(func() int { return kind })
}

// lapses causes an outage that is about as long as the longest one that the holder survives. The standbys take the
// slot as early as they may.
func (s *supported) lapses() bool {
	w := s.template().Failsafe.Outage
	s.Do(func() {
		c := s.Checks.Holder(rolled)
		s.hurry(c)
		s.begin(s.Rng.IntN(outages - 1)) // a holder whose writes are slow may ride for ever
	})
	fine := s.Pass(engine.Between(s.Rng, w, s.longest*3/2))
	s.Do(s.end)
	return fine && s.Pass(world.Slow(s.longest))
}

// hurry lets only the margins keep the end of the child apart from the next child: the child ignores SIGTERM, and
// perhaps the clock of its node is slow, and those of the other nodes are fast.
func (s *supported) hurry(c *world.Child) {
	c.Stops = -1
	if engine.Chance(s.Rng, .5) {
		return
	}
	for _, n := range s.Nodes {
		if n.SetRate(1 + world.Skew); n == c.Pod().Node {
			n.SetRate(1 - world.Skew)
		}
	}
}

// dies crashes the holder's node, or cuts it off from everything. A supporter must take the slot as early as that of
// every other holder, whatever it has promised. Perhaps the holder's hold is young, its agent has just begun, or its
// network has failed for a while.
func (s *supported) dies() bool {
	var c *world.Child
	s.Do(func() { c = s.Checks.Holder(rolled) })
	n, bound := c.Pod().Node, world.Slow(s.budget.Duration)
	switch s.Rng.IntN(6) {
	case 0:
		bound += world.MostBackOff // the pod that yields may be the only other one
		s.Do(func() {
			if a := c.Pod().Agent(); a.Up() {
				a.Yield()
			}
		})
		other := func() bool { next := s.Checks.Holder(rolled); return next != nil && next.Hold != c.Hold }
		if !s.Until(s.settling(), other) {
			s.Do(func() { s.Violate(world.Nobody, "nobody takes the slot that %s yields", c.Name) })
			return false
		}
		s.Do(func() { c = s.Checks.Holder(rolled); n = c.Pod().Node })
	case 1:
		s.Do(func() { c.Pod().Agent().Kill(); c.Pod().RestartAgent() })
	case 2:
		s.Do(func() { n.CutAPI(true, true) })
	case 3:
		s.Do(func() { s.isolate(n) })
	}
	if !s.Pass(engine.Between(s.Rng, time.Millisecond, s.budget.RenewDeadline)) {
		return false
	}
	return s.isTaken(bound, func() {
		n.Reconnect()
		s.hurry(c)
		if engine.Chance(s.Rng, .5) {
			n.Crash()
		} else {
			n.Cut(true, engine.Chance(s.Rng, .5))
		}
	})
}

// isCutOff cuts the holder's node off from the API server alone. Its supporters promise, until they notice that their
// own writes are stored.
func (s *supported) isCutOff() bool {
	notice := s.budget.Renew + s.budget.RequestTimeout + s.budget.Renew*2/5 + 2*s.budget.Renew
	return s.isTaken(world.Slow(s.budget.Duration+notice)+s.budget.RequestTimeout, func() {
		c := s.Checks.Holder(rolled)
		s.hurry(c)
		s.Channel.Slow = engine.Pick(s.Rng, []float64{0, 0, .3})
		n := c.Pod().Node
		n.CutAPI(true, engine.Chance(s.Rng, .5))
		if engine.Chance(s.Rng, .3) {
			n.Part(s.pod(engine.Pick(s.Rng, s.list().Names())).Node) // one supporter hears no ask
		}
		for range s.Rng.IntN(4) {
			begin, last := engine.Between(s.Rng, time.Millisecond, s.budget.Duration), engine.Between(s.Rng, time.Millisecond, s.budget.Duration/2)
			s.After(begin, func() {
				if a := c.Pod().Agent(); a != nil && !a.FrozenAlone {
					a.FreezeAlone()
					s.After(last, a.ThawAlone)
				}
			})
		}
	})
}

// isTaken causes the fault of the holder's node, and demands that another pod takes the slot within the bound.
func (s *supported) isTaken(bound time.Duration, fault func()) bool {
	var was string
	s.Do(func() {
		fault()
		if l, ok := s.API.Lease(rolled); ok {
			was = l.Holder
		}
	})
	bound += time.Second + world.Late
	if !s.Until(bound, func() bool {
		l, ok := s.API.Lease(rolled)
		return ok && l.Holder != "" && l.Holder != was
	}) {
		s.Do(func() { s.Violate(world.Nobody, "%v after %s was cut off no supporter has taken the slot", bound, was) })
		return false
	}
	if !s.Pass(engine.Between(s.Rng, time.Second, world.Slow(s.budget.Duration))) {
		return false
	}
	s.Do(func() { s.Channel = world.Channel{}; s.heal() })
	return true
}

// isolate cuts the ways between the node and all other nodes.
func (s *supported) isolate(n *world.Node) {
	both := engine.Chance(s.Rng, .5)
	for _, other := range s.Nodes {
		if other == n {
			continue
		}
		if n.Part(other); both {
			other.Part(n)
		}
	}
}

// parts cuts the ways between the holder's node and all other nodes. The API server answers, so nothing stops.
func (s *supported) parts() bool {
	var c *world.Child
	s.Do(func() {
		c = s.Checks.Holder(rolled)
		s.isolate(c.Pod().Node)
	})
	if !s.Pass(engine.Between(s.Rng, time.Second, 20*s.budget.Renew)) {
		return false
	}
	s.Do(s.heal)
	return s.runsOn(c)
}

// suffers lets faults happen, mostly in an outage.
func (s *supported) suffers() bool {
	s.Do(func() {
		if engine.Chance(s.Rng, .7) {
			s.begin(s.Rng.IntN(outages))
		}
	})
	pause := engine.Between(s.Rng, time.Second, 20*time.Second)
	fine := disturbFor(s.World, engine.Between(s.Rng, time.Minute, 5*time.Minute), pause, s.strike)
	s.Do(func() {
		s.Channel = world.Channel{}
		s.heal()
		s.killStopped()
	})
	return fine
}

// strike causes a random fault, often one of the network between the nodes.
func (s *supported) strike() {
	n, other := engine.Pick(s.Rng, s.Nodes), engine.Pick(s.Rng, s.Nodes)
	last := engine.Between(s.Rng, time.Second, 4*s.budget.Duration)
	switch s.Rng.IntN(8) {
	case 0:
		s.Channel = world.Channel{Lost: s.Rng.Float64() / 2, Slow: s.Rng.Float64() / 2}
		s.Note("script", "the network between the nodes loses %.2f, and delays %.2f", s.Channel.Lost, s.Channel.Slow)
	case 1:
		if n.Part(other); engine.Chance(s.Rng, .5) {
			other.Part(n)
		}
		s.After(last, n.Reconnect)
	case 2:
		if c := s.Checks.Holder(rolled); c != nil {
			n = c.Pod().Node
			s.hurry(c)
		}
		way := s.Rng.IntN(3)
		n.CutAPI(way != 0, way != 1)
		s.After(last, n.Reconnect)
	case 3:
		if ids := s.list().Names(); len(ids) > 0 {
			if p := s.pod(engine.Pick(s.Rng, ids)); p != nil {
				p.Agent().Kill()
				p.RestartAgent()
			}
		}
	default:
		s.trouble.strike()
	}
}
