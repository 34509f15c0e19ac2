// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// processRows has the cases of the story "table" about children, shims and agents.
type processRows struct{ *demands }

func (r processRows) rows() map[string]func() {
	return map[string]func(){
		"the child ends":                    func() { r.handover(r.each(crash)) },
		"yield":                             func() { r.handover(yield); r.notByFormer() },
		"pod deletion":                      func() { r.handover(stopPod) },
		"grace run out":                     func() { r.handover(r.each(func(c *world.Child) { ignoreStop(c); stopPod(c) })) },
		"forced deletion":                   func() { r.expiry(func(c *world.Child) { c.Pod().Forget() }) },
		"shim killed":                       func() { r.handover(r.each(func(c *world.Child) { c.Shim.Exit() })) },
		"shim frozen":                       func() { r.undisturbed(func(c *world.Child) { c.Shim.Freeze() }) },
		"agent killed":                      func() { r.undisturbed(replaceAgent) },
		"agent in back-off":                 func() { r.expiry(func(c *world.Child) { c.Pod().Agent().Kill() }) },
		"agent and shim killed":             func() { r.expiry(r.killBoth) },
		"agent frozen":                      func() { r.expiry(func(c *world.Child) { c.Pod().Agent().FreezeAlone() }) },
		"agent replaced, writes lost":       func() { r.safely(r.replaceUnwritable) },
		"the granted shim never comes back": func() { r.expiry(r.replaceBoth) },
		"loop blocked":                      func() { r.expiry(func(c *world.Child) { c.Pod().Agent().Block(2 * r.budget.Duration) }) },
		"loop blocked for a moment":         func() { r.undisturbed(r.blockBriefly) },
		"container forgotten":               r.forgotten,
	}
}

// killBoth kills the agent and its shims at the same instant, so that no agent process learns of
// the shims' deaths.
func (r processRows) killBoth(c *world.Child) {
	c.Pod().Agent().Kill()
	for _, other := range r.alive(c.Hold) {
		other.Shim.Exit()
	}
	c.Pod().RestartAgent()
}

// replaceBoth suspends the shim that has the grant, and kills the agent. The child of the suspended
// shim runs on. A new agent process and a fresh shim of the same container start.
func (r processRows) replaceBoth(c *world.Child) {
	c.Shim.Freeze()
	c.Pod().Agent().Kill()
	c.Container.StartShim()
	c.Pod().RestartAgent()
}

// replaceUnwritable replaces the agent while the API server stores no write. The new agent
// process finds the child and the Lease, but cannot renew.
func (r processRows) replaceUnwritable(c *world.Child) {
	p := c.Pod()
	p.Agent().Kill()
	r.API.Weather.Unstored = true
	r.After(engine.Between(r.Rng, r.budget.Renew, r.budget.RenewDeadline), func() {
		if !p.Stopping && len(p.Agents) == 0 {
			p.StartAgent()
		}
	})
}

// blockBriefly blocks the agent's loop for less than the longest outage of the API server that
// a child survives. So the block stops no child.
func (r processRows) blockBriefly(c *world.Child) {
	c.Pod().Agent().Block(engine.Between(r.Rng, 10*time.Millisecond, r.budget.Outage()*9/10))
}

// forgotten makes the kubelet forget a container, and start a second container beside the forgotten
// container. A new agent process replaces the agent. The agent must drain the forgotten container,
// so that a child of the second container runs.
func (r processRows) forgotten() {
	var fresh *world.ShimProcess
	r.once(func(c *world.Child) {
		c.Shim.Forgotten = true
		c.Pod().Agent().Kill()
		c.Container.StartShim()
		fresh = c.Container.Shims[len(c.Container.Shims)-1]
		c.Pod().RestartAgent()
	})
	bound := world.Slow(r.budget.Drain) + r.budget.Kill + 5*time.Second
	r.Until(bound, func() bool { return r.Checks.InUse(r.slot) })
	r.Do(func() {
		for _, c := range r.Checks.Alive {
			if !c.Current() {
				r.Violate(world.Nobody, "%s lives in a container that the kubelet has forgotten", c.Name)
			}
		}
		if !r.Checks.InUse(r.slot) {
			r.Violate(world.Nobody, "nobody holds %v after %s was started beside a forgotten container", bound, fresh.Name)
		}
	})
	r.Do(func() {
		for _, p := range r.Pods {
			for _, c := range p.Containers {
				for _, s := range slices.Clone(c.Shims) {
					if s.Forgotten {
						s.Exit()
					}
				}
			}
		}
	})
}
