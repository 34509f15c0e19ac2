// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"time"
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
		c.shift, c.shift, c.apiTrouble, c.verbTrouble, func() { c.api.breakWatches(c.rng) }, c.enrollTrouble, c.optingOut,
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
func (c *trouble) one() { pick(c.rng, c.troubles())() }

// disturbFor calls the argument "disturb" again and again for the duration d. The random pauses
// between the calls are shorter than the argument "pause". After a violation the result is false.
func disturbFor(w *World, d, pause time.Duration, disturb func()) bool {
	w.do(func() { w.calm = false; w.note("script", "trouble for %v", d) })
	for end := w.now() + d; w.now() < end; {
		w.do(disturb)
		if !w.pass(between(w.rng, time.Millisecond, pause)) {
			return false
		}
	}
	return true
}

// shift changes the [weather], the set of faults of requests. The weather in the field "climate"
// counts as fair. Fair weather mostly becomes foul, and any other weather becomes fair.
func (c *trouble) shift() {
	if c.weather == c.climate && chance(c.rng, .7) {
		c.weather = foul
		c.weather.watches, c.weather.idle, c.weather.silent = c.climate.watches, c.climate.idle, c.climate.silent
		c.note("script", "foul weather")
		return
	}
	c.weather = c.climate
	c.note("script", "fair weather")
}

// verbTrouble makes all requests of one kind fail, while those of other kinds work.
func (c *trouble) verbTrouble() {
	which, what := c.rng.IntN(3), pick(c.rng, faults)
	of := func(w *weather) *fault { return []*fault{&w.gets, &w.puts, &w.watches}[which] }
	*of(&c.weather) = what
	c.note("script", "%s fail (%v)", []string{"gets", "puts", "watches"}[which], what)
	c.after(between(c.rng, 100*time.Millisecond, 2*c.longest), func() {
		*of(&c.weather) = *of(&c.climate)
	})
}

// optingOut removes the namespace's label, or restores it.
func (c *trouble) optingOut() {
	c.optedOut = !c.optedOut
	c.note("script", "namespace is opted out: %v", c.optedOut)
	for _, e := range c.enrolls {
		e.nudge()
	}
}

// clockTrouble changes the clock of a running machine.
func (c *trouble) clockTrouble() {
	n := pick(c.rng, c.nodes)
	if chance(c.rng, .5) {
		n.step(n.anyStep())
		return
	}
	n.slew()
}

// apiTrouble makes the API server unreachable for a while.
func (c *trouble) apiTrouble() {
	if c.api.away {
		return
	}
	c.api.goDown()
	c.after(between(c.rng, 100*time.Millisecond, 2*c.longest), c.api.comeUp)
}

// enrollTrouble ends a process of enroll, or starts another one.
func (c *trouble) enrollTrouble() {
	if len(c.enrolls) > 0 && chance(c.rng, .6) {
		pick(c.rng, c.enrolls).retire()
		return
	}
	c.newEnroller(fmt.Sprintf("enroll-%d", c.number()))
}

// takeLease deletes a Lease.
func (c *trouble) takeLease() {
	slot := pick(c.rng, c.slots)
	// The policy on deletions refuses to delete a Lease with done keys.
	if l, ok := c.api.lease(slot); ok && doneOf(l) == "" {
		must(c.api.remove("somebody", "Lease", slot, "", ""))
	}
}

// takeRole deletes the Role or the RoleBinding.
func (c *trouble) takeRole() {
	kind := pick(c.rng, []string{"Role", "RoleBinding"})
	name := RoleName
	if c.api.object(kind, name).last().raw != nil {
		must(c.api.remove("somebody", kind, name, "", ""))
	}
}

// nodeTrouble pauses, crashes, suspends or cuts off a node for a while.
func (c *trouble) nodeTrouble() {
	n := pick(c.rng, c.nodes)
	last := between(c.rng, 100*time.Millisecond, 2*c.longest)
	switch c.rng.IntN(9) {
	case 8:
		n.pause()
		c.after(last, n.unpause)
	case 0:
		n.crash()
		c.after(last, func() {
			if !n.up {
				n.reboot()
			}
		})
	case 1:
		n.freeze()
		c.after(last, n.thaw)
	default:
		way := c.rng.IntN(3)
		n.cut(way != 0, way != 1)
		c.after(last, func() { n.cutOut, n.cutIn = false, false; c.note(n.name, "is connected again") })
	}
}

// podTrouble deletes a pod, sometimes by force, and starts another pod in its place.
func (c *trouble) podTrouble() {
	p := pick(c.rng, c.pods)
	if !p.object || p.stopping {
		return
	}
	// The draws come first. A draw during a later event would change the other draws of the
	// story, which share the random source.
	t, n := p.template, pick(c.rng, c.nodes)
	respawn := func() {
		if c.count(t.workload) < c.replicas[t.workload] {
			c.newPod(t, n)
		}
	}
	switch c.rng.IntN(3) {
	case 0:
		p.forget()
		c.after(between(c.rng, 0, 30*time.Second)+time.Millisecond, p.stop)
	default:
		p.stop()
	}
	pause := between(c.rng, 10*time.Millisecond, 2*time.Second)
	if chance(c.rng, .2) {
		pause += c.longest // the workload is scaled down, and up again
	}
	c.after(pause, respawn)
}

// processTrouble kills, freezes or blocks a process of a pod, or starts a second one.
func (c *trouble) processTrouble() {
	p := pick(c.rng, c.pods)
	if !p.node.up || p.node.paused {
		return
	}
	r := c.rng
	pause := between(r, 100*time.Millisecond, c.longest)
	a := p.agent()
	var s *shimProcess
	if k := pick(r, p.containers); len(k.shims) > 0 {
		s = pick(r, k.shims)
	}
	forgotten := chance(r, .5)
	switch n := r.IntN(15); {
	case n == 0 && a != nil:
		a.kill()
		p.restartAgent()
	case n == 1 && a != nil: // the agent's container is in back-off
		a.kill()
		c.after(pause, p.restartAgent)
	case n == 2 && s != nil:
		s.exit()
	case n == 3 && a != nil && s != nil:
		s.exit()
		a.kill()
		p.restartAgent()
	case n == 4 && a != nil && !a.frozen:
		a.freezeAlone()
		c.after(pause, a.thawAlone)
	case n == 5 && s != nil && !s.dead:
		s.freeze()
		c.after(pause, s.thaw)
	case n == 6: // the kubelet has forgotten the running agent, and starts another
		p.startAgent()
	case n == 7 && s != nil && len(s.container.shims) == 1:
		s.forgotten = forgotten
		s.container.startShim()
	case n == 8 && a != nil && a.agent != nil:
		c.note(p.name, "yield")
		a.agent.Yield()
	case n == 9 && s != nil && s.child != nil && s.child.alive:
		s.child.stuck, s.child.excused = c.now()+pause, true
		c.note(s.name, "%s is in uninterruptible sleep for %v", s.child.name, pause)
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
		c.note(p.name, "agent wait fails")
		p.order.endWait()
		p.order.soon()
	}
}
