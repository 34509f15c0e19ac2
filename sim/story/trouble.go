// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// trouble causes the faults of all stories but "table".
type trouble struct {
	*workloads
	elector *world.Elector // nil in most worlds
	// takesLeases and takesRoles report whether a user deletes Leases, and whether a user deletes
	// Roles. At most one of the two fields is true. If the Lease were gone together with the Role
	// that names it, enroll would make a free Lease, although a pod may hold the slot.
	takesLeases, takesRoles bool
}

// troubles returns the faults that can happen now. The story picks one of them.
func (c *trouble) troubles() []func() {
	requests := requestFaults{c.workloads}
	all := []func(){
		requests.shift, requests.shift, c.apiTrouble, requests.fail, func() { c.API.BreakWatches(c.Rng) }, c.enrollTrouble, c.optingOut,
		c.nodeTrouble, c.nodeTrouble, c.clockTrouble,
	}
	if c.Strange {
		all = append(all, requests.strange()...)
	}
	if len(c.Pods) > 0 && c.Scarce {
		all = append(all, c.shortage, c.shortage, c.shortage)
	}
	if c.takesLeases {
		all = append(all, c.takeLease)
	}
	if c.takesRoles {
		all = append(all, c.takeRole)
	}
	if c.elector != nil {
		all = append(all, func() { c.elector.Paused = !c.elector.Paused })
	}
	if len(c.Pods) > 0 {
		all = append(all, c.podTrouble, c.podTrouble, c.processTrouble, c.processTrouble, c.processTrouble, c.processTrouble)
	}
	return all
}

// strike causes a random fault of those that can happen now.
func (c *trouble) strike() { engine.Pick(c.Rng, c.troubles())() }

// disturbFor calls the argument "disturb" again and again for the duration d. The random times
// between the calls are shorter than the argument "pause". After a violation the result is false.
func disturbFor(w *world.World, d, pause time.Duration, disturb func()) bool {
	w.Do(func() { w.Calm = false; w.Note("script", "trouble for %v", d) })
	for end := w.Now() + d; w.Now() < end; {
		w.Do(disturb)
		if !w.Pass(engine.Between(w.Rng, time.Millisecond, pause)) {
			return false
		}
	}
	return true
}

// optingOut removes the namespace's label, or restores it.
func (c *trouble) optingOut() {
	c.OptedOut = !c.OptedOut
	c.Note("script", "namespace is opted out: %v", c.OptedOut)
	for _, e := range c.Enrolls {
		e.Nudge()
	}
}

// clockTrouble changes the clock of a running machine. A paused machine sets no clock.
func (c *trouble) clockTrouble() {
	n := engine.Pick(c.Rng, c.Nodes)
	if engine.Chance(c.Rng, .5) {
		if by := n.AnyStep(); !n.Paused {
			n.Step(by)
		}
		return
	}
	n.Slew()
}

// apiTrouble makes the API server unreachable for a while.
func (c *trouble) apiTrouble() {
	if c.API.Away {
		return
	}
	c.API.GoDown()
	c.After(engine.Between(c.Rng, 100*time.Millisecond, 2*c.longest), c.API.ComeUp)
}

// enrollTrouble ends a process of enroll, or starts another one.
func (c *trouble) enrollTrouble() {
	if len(c.Enrolls) > 0 && engine.Chance(c.Rng, .6) {
		engine.Pick(c.Rng, c.Enrolls).Retire()
		return
	}
	c.NewEnroller(fmt.Sprintf("enroll-%d", c.Number()))
}

// takeLease deletes a Lease.
func (c *trouble) takeLease() {
	slot := engine.Pick(c.Rng, c.slots)
	// The policy on deletions refuses to delete a Lease with done keys.
	if l, ok := c.API.Lease(slot); ok && world.DoneOf(l) == "" {
		engine.Must(c.API.Remove("somebody", "Lease", slot, "", ""))
	}
}

// takeRole deletes the Role with the agents' rights, or the RoleBinding of that Role.
func (c *trouble) takeRole() {
	kind := engine.Pick(c.Rng, []string{"Role", "RoleBinding"})
	name := world.RoleName
	if c.API.Exists(kind, name) {
		engine.Must(c.API.Remove("somebody", kind, name, "", ""))
	}
}

// nodeTrouble pauses, crashes, suspends or cuts off a node for a while.
func (c *trouble) nodeTrouble() {
	n := engine.Pick(c.Rng, c.Nodes)
	last := engine.Between(c.Rng, 100*time.Millisecond, 2*c.longest)
	switch c.Rng.IntN(9) {
	case 8:
		n.Pause()
		c.After(last, n.Unpause)
	case 0:
		n.Crash()
		c.After(last, func() {
			if !n.Up {
				n.Reboot()
			}
		})
	case 1:
		n.Freeze()
		c.After(last, n.Thaw)
	default:
		way := c.Rng.IntN(3)
		n.Cut(way != 0, way != 1)
		c.After(last, func() { n.CutOut, n.CutIn = false, false; c.Note(n.Name, "is connected again") })
	}
}

// podTrouble deletes a pod, sometimes by force, and starts another pod in its place.
func (c *trouble) podTrouble() {
	p := engine.Pick(c.Rng, c.Pods)
	if !p.Object || p.Stopping {
		return
	}
	// The draws come first. A draw during a later event would change the other draws of the
	// story, which share the random source.
	t, n := p.Template, engine.Pick(c.Rng, c.Nodes)
	respawn := func() {
		if c.count(t.Workload) < c.replicas[t.Workload] {
			c.NewPod(t, n)
		}
	}
	switch c.Rng.IntN(3) {
	case 0:
		p.Forget()
		c.After(engine.Between(c.Rng, 0, 30*time.Second)+time.Millisecond, p.Stop)
	default:
		p.Stop()
	}
	pause := engine.Between(c.Rng, 10*time.Millisecond, 2*time.Second)
	if engine.Chance(c.Rng, .2) {
		pause += c.longest // the workload is scaled down, and up again
	}
	c.After(pause, respawn)
}

// processTrouble disturbs a random process of a random pod, such as the agent, a shim or a child.
// The trouble may also be a second agent or shim, which starts beside the first.
func (c *trouble) processTrouble() {
	disturbProcess(c.World, engine.Pick(c.Rng, c.Pods), c.Rng, c.longest)
}

// disturbProcess disturbs a random process of the pod, for the time "longest" at most.
func disturbProcess(w *world.World, p *world.Pod, r *rand.Rand, longest time.Duration) {
	if !p.Node.Up || p.Node.Paused {
		return
	}
	pause := engine.Between(r, 100*time.Millisecond, longest)
	a := p.Agent()
	var s *world.ShimProcess
	if k := engine.Pick(r, p.Containers); len(k.Shims) > 0 {
		s = engine.Pick(r, k.Shims)
	}
	forgotten := engine.Chance(r, .5)
	switch n := r.IntN(15); {
	case n == 0 && a != nil:
		a.Kill()
		p.RestartAgent()
	case n == 1 && a != nil: // the agent's container is in back-off
		a.Kill()
		w.After(pause, p.RestartAgent)
	case n == 2 && s != nil:
		s.Exit()
	case n == 3 && a != nil && s != nil:
		s.Exit()
		a.Kill()
		p.RestartAgent()
	case n == 4 && a != nil && !a.FrozenAlone:
		a.FreezeAlone()
		w.After(pause, a.ThawAlone)
	case n == 5 && s != nil && !s.Dead:
		s.Freeze()
		w.After(pause, s.Thaw)
	case n == 6: // the kubelet has forgotten the running agent, and starts another
		p.StartAgent()
	case (n == 7 || n == 12) && p.Stopping: // the kubelet starts no container in a pod that it stops
	case n == 7 && s != nil && len(s.Container.Shims) == 1:
		s.Forgotten = forgotten
		s.Container.StartShim()
	case n == 8 && a != nil && a.Up():
		w.Note(p.Name, "yield")
		a.Yield()
	case n == 9 && s != nil && s.Child != nil && s.Child.Alive:
		s.Child.Stuck, s.Child.Excused = w.Now()+pause, true
		w.Note(s.Name, "%s is in uninterruptible sleep for %v", s.Child.Name, pause)
	case n == 10 && a != nil: // a person runs "kill 1" in the container
		a.Terminate()
	case n == 11 && a != nil:
		a.Block(pause)
	case n == 12 && s != nil && len(s.Container.Shims) == 1: // a new shim and a new agent start
		s.Forgotten = true
		s.Container.StartShim()
		if a != nil {
			a.Kill()
			p.RestartAgent()
		}
	case s != nil && s.Child != nil:
		crash(s.Child)
	case n < 4 && p.Containers[0].App != nil:
		crash(p.Containers[0].App)
	case n < 6 && p.Order.Waiter != nil: // the container of "agent wait" fails, and starts again
		w.Note(p.Name, "agent wait fails")
		p.Order.EndWait()
		p.Order.Soon()
	}
}

// shortage lets a pod run out of something for a while: of space in its volume, of processes, or of
// buffers of its sockets. A pod whose application ends keeps its buffers. Its agent reads all the
// time, so a real socket of that agent is full for an instant only.
func (c *trouble) shortage() {
	p := engine.Pick(c.Rng, c.Pods)
	last := engine.Between(c.Rng, 100*time.Millisecond, 2*c.longest)
	which := c.Rng.IntN(3)
	if p.Ends > 0 {
		which %= 2
	}
	lacks := []*bool{&p.Full, &p.Unforkable, &p.Clogged}[which]
	*lacks = true
	c.Note(p.Name, "%s for %v", []string{"its volume is full", "no child can start", "its sockets are full"}[which], last)
	c.After(last, func() { *lacks = false })
}
