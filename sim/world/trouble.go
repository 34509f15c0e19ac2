// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"time"

	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// trouble causes the faults of all stories but "table".
type trouble struct {
	*workloads
	elector *elector // nil in most worlds
	// takesLeases and takesRoles report that a user deletes Leases, or Roles. No seed has both.
	// If the Lease were gone together with the Role that names it, enroll would make a free
	// Lease, although a pod may hold the slot.
	takesLeases, takesRoles bool
}

// troubles returns the faults that can happen now. The story picks one of them.
func (c *trouble) troubles() []func() {
	all := []func(){
		c.shift, c.shift, c.apiTrouble, c.verbTrouble, func() { c.api.BreakWatches(c.Rng) }, c.enrollTrouble, c.optingOut,
		c.nodeTrouble, c.nodeTrouble, c.clockTrouble,
	}
	if c.takesLeases {
		all = append(all, c.takeLease)
	}
	if c.takesRoles {
		all = append(all, c.takeRole)
	}
	if c.elector != nil {
		all = append(all, func() { c.elector.paused = !c.elector.paused })
	}
	if len(c.pods) > 0 {
		all = append(all, c.podTrouble, c.podTrouble, c.processTrouble, c.processTrouble, c.processTrouble, c.processTrouble)
	}
	return all
}

// one causes one of the faults that can happen now.
func (c *trouble) one() { engine.Pick(c.Rng, c.troubles())() }

// disturbFor calls the argument "disturb" again and again for the duration d. The random pauses
// between the calls are shorter than the argument "pause". After a violation the result is false.
func disturbFor(w *World, d, pause time.Duration, disturb func()) bool {
	w.Do(func() { w.calm = false; w.Note("script", "trouble for %v", d) })
	for end := w.Now() + d; w.Now() < end; {
		w.Do(disturb)
		if !w.Pass(engine.Between(w.Rng, time.Millisecond, pause)) {
			return false
		}
	}
	return true
}

// shift changes the [apiserver.Weather], the set of faults of requests. The weather in the field "climate"
// counts as fair. Fair weather mostly becomes foul, and any other weather becomes fair.
func (c *trouble) shift() {
	if c.api.Weather == c.climate && engine.Chance(c.Rng, .7) {
		c.api.Weather = apiserver.Foul
		c.api.Weather.Watches, c.api.Weather.Idle, c.api.Weather.Silent = c.climate.Watches, c.climate.Idle, c.climate.Silent
		c.Note("script", "foul weather")
		return
	}
	c.api.Weather = c.climate
	c.Note("script", "fair weather")
}

// verbTrouble makes all requests of one kind fail, while those of other kinds work.
func (c *trouble) verbTrouble() {
	which, what := c.Rng.IntN(3), engine.Pick(c.Rng, apiserver.Faults)
	of := func(w *apiserver.Weather) *apiserver.Fault {
		return []*apiserver.Fault{&w.Gets, &w.Puts, &w.Watches}[which]
	}
	*of(&c.api.Weather) = what
	c.Note("script", "%s fail (%v)", []string{"gets", "puts", "watches"}[which], what)
	c.After(engine.Between(c.Rng, 100*time.Millisecond, 2*c.longest), func() {
		*of(&c.api.Weather) = *of(&c.climate)
	})
}

// optingOut removes the namespace's label, or restores it.
func (c *trouble) optingOut() {
	c.optedOut = !c.optedOut
	c.Note("script", "namespace is opted out: %v", c.optedOut)
	for _, e := range c.enrolls {
		e.nudge()
	}
}

// clockTrouble changes the clock of a running machine.
func (c *trouble) clockTrouble() {
	n := engine.Pick(c.Rng, c.nodes)
	if engine.Chance(c.Rng, .5) {
		n.step(n.anyStep())
		return
	}
	n.slew()
}

// apiTrouble makes the API server unreachable for a while.
func (c *trouble) apiTrouble() {
	if c.api.Away {
		return
	}
	c.api.GoDown()
	c.After(engine.Between(c.Rng, 100*time.Millisecond, 2*c.longest), c.api.ComeUp)
}

// enrollTrouble ends a process of enroll, or starts another one.
func (c *trouble) enrollTrouble() {
	if len(c.enrolls) > 0 && engine.Chance(c.Rng, .6) {
		engine.Pick(c.Rng, c.enrolls).retire()
		return
	}
	c.newEnroller(fmt.Sprintf("enroll-%d", c.Number()))
}

// takeLease deletes a Lease.
func (c *trouble) takeLease() {
	slot := engine.Pick(c.Rng, c.slots)
	// The policy on deletions refuses to delete a Lease with done keys.
	if l, ok := c.api.Lease(slot); ok && doneOf(l) == "" {
		engine.Must(c.api.Remove("somebody", "Lease", slot, "", ""))
	}
}

// takeRole deletes the Role or the RoleBinding.
func (c *trouble) takeRole() {
	kind := engine.Pick(c.Rng, []string{"Role", "RoleBinding"})
	name := RoleName
	if c.api.Exists(kind, name) {
		engine.Must(c.api.Remove("somebody", kind, name, "", ""))
	}
}

// nodeTrouble pauses, crashes, suspends or cuts off a node for a while.
func (c *trouble) nodeTrouble() {
	n := engine.Pick(c.Rng, c.nodes)
	last := engine.Between(c.Rng, 100*time.Millisecond, 2*c.longest)
	switch c.Rng.IntN(9) {
	case 8:
		n.pause()
		c.After(last, n.unpause)
	case 0:
		n.crash()
		c.After(last, func() {
			if !n.up {
				n.reboot()
			}
		})
	case 1:
		n.freeze()
		c.After(last, n.thaw)
	default:
		way := c.Rng.IntN(3)
		n.cut(way != 0, way != 1)
		c.After(last, func() { n.cutOut, n.cutIn = false, false; c.Note(n.name, "is connected again") })
	}
}

// podTrouble deletes a pod, sometimes by force, and starts another pod in its place.
func (c *trouble) podTrouble() {
	p := engine.Pick(c.Rng, c.pods)
	if !p.object || p.stopping {
		return
	}
	// The draws come first. A draw during a later event would change the other draws of the
	// story, which share the random source.
	t, n := p.template, engine.Pick(c.Rng, c.nodes)
	respawn := func() {
		if c.count(t.workload) < c.replicas[t.workload] {
			c.newPod(t, n)
		}
	}
	switch c.Rng.IntN(3) {
	case 0:
		p.forget()
		c.After(engine.Between(c.Rng, 0, 30*time.Second)+time.Millisecond, p.stop)
	default:
		p.stop()
	}
	pause := engine.Between(c.Rng, 10*time.Millisecond, 2*time.Second)
	if engine.Chance(c.Rng, .2) {
		pause += c.longest // the workload is scaled down, and up again
	}
	c.After(pause, respawn)
}

// processTrouble kills, freezes or blocks a process of a pod, or starts a second one.
func (c *trouble) processTrouble() {
	p := engine.Pick(c.Rng, c.pods)
	if !p.node.up || p.node.paused {
		return
	}
	r := c.Rng
	pause := engine.Between(r, 100*time.Millisecond, c.longest)
	a := p.agent()
	var s *shimProcess
	if k := engine.Pick(r, p.containers); len(k.shims) > 0 {
		s = engine.Pick(r, k.shims)
	}
	forgotten := engine.Chance(r, .5)
	switch n := r.IntN(15); {
	case n == 0 && a != nil:
		a.kill()
		p.restartAgent()
	case n == 1 && a != nil: // the agent's container is in back-off
		a.kill()
		c.After(pause, p.restartAgent)
	case n == 2 && s != nil:
		s.exit()
	case n == 3 && a != nil && s != nil:
		s.exit()
		a.kill()
		p.restartAgent()
	case n == 4 && a != nil && !a.frozen:
		a.freezeAlone()
		c.After(pause, a.thawAlone)
	case n == 5 && s != nil && !s.dead:
		s.freeze()
		c.After(pause, s.thaw)
	case n == 6: // the kubelet has forgotten the running agent, and starts another
		p.startAgent()
	case n == 7 && s != nil && len(s.container.shims) == 1:
		s.forgotten = forgotten
		s.container.startShim()
	case n == 8 && a != nil && a.agent != nil:
		c.Note(p.name, "yield")
		a.agent.Yield()
	case n == 9 && s != nil && s.child != nil && s.child.alive:
		s.child.stuck, s.child.excused = c.Now()+pause, true
		c.Note(s.name, "%s is in uninterruptible sleep for %v", s.child.name, pause)
	case n == 10 && a != nil: // a person runs kill 1 in the container
		a.terminate()
	case n == 11 && a != nil:
		a.block(pause)
	case n == 12 && s != nil && len(s.container.shims) == 1: // a new shim and a new agent start
		s.forgotten = true
		s.container.startShim()
		if a != nil {
			a.kill()
			p.restartAgent()
		}
	case s != nil && s.child != nil:
		crash(s.child)
	case n < 4 && p.containers[0].app != nil:
		crash(p.containers[0].app)
	case n < 6 && p.order.waiter != nil: // the container of "agent wait" fails, and starts again
		c.Note(p.name, "agent wait fails")
		p.order.endWait()
		p.order.soon()
	}
}
