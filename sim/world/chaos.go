// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// chaos is ten minutes of trouble and recovery. During a trouble the invariants of
// safety alone count. After it a pod holds again, and goes on to hold. In the end each
// remaining pod holds once.
type chaos struct {
	*World
	templates []template
	replicas  map[string]int
	slots     []string
	longest   time.Duration
	grace     time.Duration
	// takesLeases and takesRoles: a user deletes Leases, or Roles. A seed never does both:
	// no trace would be left of a held Lease.
	takesLeases, takesRoles bool
	elector                 *elector
	// person is nil in most seeds.
	person *person
	// climate is the weather that lasts for the whole seed.
	climate weather
	// patient: leases may be long.
	patient bool
}

// pool are the slots of a semaphore, of which a pod needs one. Each fifth seed of the
// chaos has five pods that claim it.
var pool = api.Claim{Kind: api.Semaphore, Name: "pool", Size: 3}.Slots(api.Workload{})

// durations are mostly short, because more happens then. The durations of patience are
// so long that a fixed time, instead of a share of the lease, would be too short.
var (
	durations = []time.Duration{10 * time.Second, 12 * time.Second, 15 * time.Second, 20 * time.Second, 30 * time.Second}
	patience  = append([]time.Duration{time.Minute, 5 * time.Minute, 10 * time.Minute, time.Hour}, durations...)
)

func (w *World) newChaos() *chaos {
	c := &chaos{World: w, replicas: map[string]int{}}
	c.takesLeases = chance(w.rng, .4)
	c.takesRoles = !c.takesLeases && chance(w.rng, .4)
	c.patient = chance(w.rng, .2)
	for i := range 3 {
		w.newNode(fmt.Sprintf("node-%d", i+1))
	}
	a, b := api.LockLease("a"), api.LockLease("b")
	switch cast := w.rng.IntN(5); {
	case w.seed%10 == 5:
		c.add("web", 3, pool...)
		c.add("job", 2, pool...)
	case cast == 4:
		c.add("web", 1, a)
	case cast == 0:
		c.add("web", 3, a)
	case cast == 1:
		c.add("web", 2, a)
		c.add("job", 2, a)
	case cast == 2:
		c.add("web", 2, a, b)
		c.add("job", 2, b)
	default:
		c.add("web", 2, a, b)
		c.add("job", 2, a, b)
	}
	w.newEnroller("enroll-1")
	if chance(w.rng, .3) {
		w.newEnroller("enroll-2")
	}
	if chance(w.rng, .2) {
		c.elector = w.newElector("elector", c.slots[0])
		c.elector.paused = true
		c.longest = max(c.longest, electorLease)
	}
	c.newPerson()
	w.latest = max(w.latest, c.longest)
	if chance(w.rng, .5) {
		c.climate = pick(w.rng, climates(c.longest))
		w.weather = c.climate
		w.note("script", "climate %+v", c.climate)
	}
	return c
}

// scale returns the factor by which everything takes longer than with a lease of half
// a minute.
func (c *chaos) scale() time.Duration { return max(1, c.longest/(30*time.Second)) }

func (c *chaos) add(workload string, replicas int, slots ...string) {
	r, choice := c.rng, durations
	if c.patient {
		choice = patience
	}
	t := template{
		workload: workload, slots: slots, any: slots[0] == pool[0], duration: pick(r, choice), gate: pick(r, gates), grace: between(r, 3*time.Second, 20*time.Second),
		containers: []string{"app"}, standBy: chance(r, .8),
		keepsName: replicas == 1, obedient: chance(r, .3),
	}
	if chance(r, .25) {
		t.containers = append(t.containers, "side")
	}
	if chance(r, .25) {
		t.inits = []string{"migrate"}
	}
	if chance(r, .3) {
		t.restless = between(r, 5*time.Second, time.Minute) * max(1, t.duration/(30*time.Second))
	}
	if chance(r, .2) {
		t.lateReader = between(r, time.Millisecond, 500*time.Millisecond)
	}
	c.templates = append(c.templates, t)
	c.longest, c.grace = max(c.longest, t.duration), max(c.grace, t.grace)
	for _, s := range slots {
		if !slices.Contains(c.slots, s) {
			c.slots = append(c.slots, s)
		}
	}
	c.replicas[workload] = replicas
	for range replicas {
		c.newPod(t, pick(r, c.nodes))
	}
}

// run plays the whole story of one seed.
func (c *chaos) run() {
	if !c.quiet("the start") {
		return
	}
	for range 3 {
		if !c.trouble(c.scale() * between(c.rng, 60*time.Second, 120*time.Second)) {
			return
		}
		c.do(c.heal)
		if !c.quiet("the trouble") {
			return
		}
	}
	c.parade()
}

// trouble lasts for a while.
func (c *chaos) trouble(last time.Duration) bool {
	c.do(func() { c.calm = false; c.note("script", "trouble for %v", last) })
	pace := c.scale() * between(c.rng, 500*time.Millisecond, 10*time.Second)
	for end := c.now() + last; c.now() < end; {
		c.do(func() { pick(c.rng, c.troubles())() })
		if !c.pass(between(c.rng, time.Millisecond, 2*pace)) {
			return false
		}
	}
	return true
}

// quiet demands that a pod holds again in time, and that nothing happens from then on.
func (c *chaos) quiet(after string) bool {
	bound := c.settling()
	settled := func() bool {
		return !slices.ContainsFunc(c.slots, func(s string) bool { return c.wanted(s) && !c.settled(s) })
	}
	// The trouble may have a late effect: a child whose renewals failed until just now
	// drains.
	for end := c.now() + bound; ; {
		if !c.until(end-c.now(), settled) {
			c.do(func() { c.stuckSlots(after, bound) })
			return false
		}
		ends := c.ends()
		c.do(func() { c.note("script", "settled after %s", after) })
		if !c.pass(max(slow(c.longest), c.latest) + 5*time.Second) {
			return false
		}
		if c.ends() == ends || c.now() > end {
			return c.steady(20 * time.Second)
		}
	}
}

func (c *chaos) ends() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.ledger.ends)
}

func (c *chaos) stuckSlots(after string, bound time.Duration) {
	for _, s := range c.slots {
		if c.wanted(s) && !c.settled(s) {
			c.violate(nobody, "%s after %s nobody holds %s", bound, after, s)
		}
	}
}

// steady demands that no child stops, standbys are silent, and holders send only
// renewals.
func (c *chaos) steady(last time.Duration) bool {
	before := map[*agentProcess]int{}
	ends := c.ends()
	c.do(func() {
		for _, p := range c.pods {
			if a := p.agent(); a != nil {
				before[a] = a.total()
			}
		}
	})
	if !c.pass(last) {
		return false
	}
	c.do(func() {
		for _, child := range c.ledger.alive {
			if child.shim == nil {
				c.checkRightful(child)
			}
		}
		if len(c.ledger.ends) > ends {
			c.violate(stopped, "%s ended in quiet times", c.ledger.ends[ends].child.name)
		}
		for _, p := range c.pods {
			a := p.agent()
			if n, ok := before[a]; a != nil && ok && c.weather == fair {
				c.checkChatter(a, a.total()-n, last)
			}
		}
	})
	return c.verdict == ""
}

// checkRightful demands that in quiet times an application without a shim runs in the
// holder alone.
func (c *chaos) checkRightful(child *child) {
	for _, t := range child.slots {
		if lease, ok := c.api.lease(t.Slot); !ok || lease.Holder != child.pod().identity() {
			c.violate(outlived, "%s lives in quiet times, and %s is not its pod's", child.name, t.Slot)
		}
	}
}

// checkChatter demands that a standby sends nothing, and that a holder sends renewals
// alone.
func (c *chaos) checkChatter(a *agentProcess, sent int, last time.Duration) {
	held := 0
	for _, slot := range a.pod.slots {
		if lease, ok := c.api.lease(slot); ok && lease.Holder == a.pod.identity() {
			held++
		}
	}
	budget, err := api.NewBudget(a.pod.duration)
	must(err)
	most := held * (int(float64(last)*(1+skew)/float64(budget.Renew)) + 1)
	if sent > most {
		c.violate(chatter, "%s holds %d slots and sent %d requests in %v, not %d: in all %v", a.name, held, sent, last, most, a.sent)
	}
}

func (a *agentProcess) total() int {
	n := 0
	for _, sent := range a.sent {
		n += sent
	}
	return n
}

// heal ends all trouble.
func (c *chaos) heal() {
	c.calm, c.healed = true, c.now()
	c.note("script", "heals everything")
	c.weather = c.climate
	c.optedOut = false
	c.apiUp()
	for _, s := range c.api.watches {
		s.hurry()
	}
	if c.elector != nil {
		c.elector.paused = true
	}
	if c.person != nil {
		c.person.resume()
	}
	for _, n := range c.nodes {
		n.heal()
	}
	for _, p := range slices.Clone(c.pods) {
		p.recover()
	}
	if len(c.enrolls) == 0 {
		c.serial++
		c.newEnroller(fmt.Sprintf("enroll-%d", c.serial))
	}
	for _, t := range c.templates {
		for range c.replicas[t.workload] - c.count(t.workload) {
			c.newPod(t, c.place())
		}
	}
}

// place returns a node with as few pods as any other.
func (c *chaos) place() *node {
	return slices.MinFunc(c.nodes, func(a, b *node) int { return len(a.pods()) - len(b.pods()) })
}

func (c *chaos) count(workload string) int {
	n := 0
	for _, p := range c.pods {
		if p.workload == workload && p.object && !p.stopping {
			n++
		}
	}
	return n
}

// recover lets the kubelet start again what its node should run.
func (p *pod) recover() {
	if !p.object {
		p.stop()
		return
	}
	for len(p.agents) > 1 {
		p.agents[0].kill()
	}
	for _, a := range p.agents {
		a.thawAlone()
		a.unblock()
	}
	for _, c := range p.containers {
		for _, s := range c.shims {
			s.thaw()
		}
		// A container that the kubelet has forgotten stays.
		if len(c.shims) > 1 && !c.shims[0].dead && !c.shims[0].forgotten {
			c.shims[0].exit()
		}
		c.failures = 0
		c.pending = false
	}
	p.w.after(between(p.rng, 500*time.Millisecond, 2*time.Second), p.startAll)
}

// parade deletes one holder after the other, so that each pod holds once.
func (c *chaos) parade() {
	for {
		var holder *pod
		c.do(func() {
			for _, child := range c.ledger.alive {
				if child.pod().healthy() {
					holder = child.pod()
				}
			}
			if holder != nil {
				c.note("script", "%s had its turn", holder.name)
				holder.stop()
			}
		})
		if holder == nil || !c.until(holder.grace+5*time.Second, func() bool { return holder.gone }) {
			break
		}
		settled := func() bool {
			return !slices.ContainsFunc(c.slots, func(s string) bool { return c.wanted(s) && !c.settled(s) })
		}
		if bound := c.handingOver(); !c.until(bound, settled) {
			c.do(func() { c.stuckSlots("a handover", bound) })
			return
		}
	}
	c.do(func() {
		for _, p := range c.pods {
			if p.healthy() {
				c.violate(nobody, "%s never had a turn", p.name)
			}
		}
	})
}
