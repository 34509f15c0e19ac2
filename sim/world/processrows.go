// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// processRows has the cases of the story "table" about children, shims and agents.
type processRows struct{ *demands }

func (r processRows) rows() map[string]func() {
	return map[string]func(){
		"the child ends":                    func() { r.handover(r.each(crash)) },
		"yield":                             func() { r.handover(yield); r.notByFormer() },
		"pod deletion":                      func() { r.handover(stopPod) },
		"grace run out":                     func() { r.handover(r.each(func(c *child) { ignoreStop(c); stopPod(c) })) },
		"forced deletion":                   func() { r.expiry(func(c *child) { c.pod().forget() }) },
		"shim killed":                       func() { r.handover(r.each(func(c *child) { c.shim.exit() })) },
		"shim frozen":                       func() { r.undisturbed(func(c *child) { c.shim.freeze() }) },
		"agent killed":                      func() { r.undisturbed(replaceAgent) },
		"agent in back-off":                 func() { r.expiry(func(c *child) { c.pod().agent().kill() }) },
		"agent and shim killed":             func() { r.expiry(r.killBoth) },
		"agent frozen":                      func() { r.expiry(func(c *child) { c.pod().agent().freezeAlone() }) },
		"agent replaced, writes lost":       func() { r.safely(r.replaceUnwritable) },
		"the granted shim never comes back": func() { r.expiry(r.replaceBoth) },
		"loop blocked":                      func() { r.expiry(func(c *child) { c.pod().agent().block(2 * r.budget.Duration) }) },
		"loop blocked for a moment":         func() { r.undisturbed(r.blockBriefly) },
		"container forgotten":               r.forgotten,
	}
}

// killBoth kills the agent and its shims at the same instant, so that no agent process learns of
// the shims' deaths.
func (r processRows) killBoth(c *child) {
	c.pod().agent().kill()
	for _, other := range r.alive(c.hold) {
		other.shim.exit()
	}
	c.pod().restartAgent()
}

// replaceBoth freezes the granted shim, and kills the agent. The child of the frozen shim runs on.
// A new agent process and a fresh shim of the container start.
func (r processRows) replaceBoth(c *child) {
	c.shim.freeze()
	c.pod().agent().kill()
	c.container.startShim()
	c.pod().restartAgent()
}

// replaceUnwritable replaces the agent while no write is stored. The new agent process finds the
// child and the Lease, but cannot renew.
func (r processRows) replaceUnwritable(c *child) {
	p := c.pod()
	p.agent().kill()
	r.api.Weather.Unstored = true
	r.After(engine.Between(r.Rng, r.budget.Renew, r.budget.RenewDeadline), func() {
		if !p.stopping && len(p.agents) == 0 {
			p.startAgent()
		}
	})
}

// blockBriefly blocks the agent's loop for less than the longest outage of the API server that
// a child survives. So the block stops no child.
func (r processRows) blockBriefly(c *child) {
	c.pod().agent().block(engine.Between(r.Rng, 10*time.Millisecond, r.budget.Outage()*9/10))
}

// forgotten makes the kubelet forget a container, and start a second container beside that one,
// with a new agent. The agent must drain the forgotten container, so that a child of the second
// container runs.
func (r processRows) forgotten() {
	var fresh *shimProcess
	r.once(func(c *child) {
		c.shim.forgotten = true
		c.pod().agent().kill()
		c.container.startShim()
		fresh = c.container.shims[len(c.container.shims)-1]
		c.pod().restartAgent()
	})
	bound := slow(r.budget.Drain) + r.budget.Kill + 5*time.Second
	r.Until(bound, func() bool { return r.checks.settled(r.slot) })
	r.Do(func() {
		for _, c := range r.checks.alive {
			if !c.current() {
				r.Violate(nobody, "%s lives in a container that the kubelet has forgotten", c.name)
			}
		}
		if !r.checks.settled(r.slot) {
			r.Violate(nobody, "nobody holds %v after %s was started beside a forgotten container", bound, fresh.name)
		}
	})
	r.Do(func() {
		for _, p := range r.pods {
			for _, c := range p.containers {
				for _, s := range slices.Clone(c.shims) {
					if s.forgotten {
						s.exit()
					}
				}
			}
		}
	})
}
