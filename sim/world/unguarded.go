// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"maps"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// unguarded returns the rows of pods without shims. Some rows of pods with shims apply
// to them as well.
func (t *table) unguarded(gate api.Gate) map[string]func() {
	all := map[string]func(){
		"node gone":                         func() { t.expiryWithin(t.starting(), func(c *child) { c.pod().node.crash() }) },
		"network gone":                      func() { t.expiryWithin(t.starting(), func(c *child) { c.pod().node.cut(true, true) }) },
		"replies gone":                      func() { t.expiryWithin(t.starting(), func(c *child) { c.pod().node.cut(false, true) }) },
		"node suspended":                    func() { t.expiryWithin(t.starting(), func(c *child) { c.pod().node.freeze() }) },
		"agent in back-off":                 func() { t.expiryWithin(t.starting(), func(c *child) { c.pod().agent().kill() }) },
		"agent frozen":                      func() { t.expiryWithin(t.starting(), func(c *child) { c.pod().agent().freezeAlone() }) },
		"machine paused":                    func() { t.safely(func(c *child) { c.pod().node.pause() }) },
		"machine paused briefly":            func() { t.undisturbed(t.pausedBriefly) },
		"clocks are set and slewed":         func() { t.undisturbed(func(*child) { t.otherClocks() }) },
		"watches end":                       func() { t.undisturbed(func(*child) { t.watchTrouble() }) },
		"loop blocked for a moment":         func() { t.undisturbed(t.blockedBriefly) },
		"API away for less than the budget": t.outage,
		"writes fail":                       func() { t.safely(func(*child) { t.weather.puts = t.anyFault() }) },
		"replies lost, then writes":         func() { t.safely(t.unanswered) },
	}
	if gate == api.GatePod {
		maps.Copy(all, map[string]func(){
			"agent killed":    func() { t.undisturbed(t.killAgent) },
			"yield":           func() { t.expiryWithin(t.starting(), (*child).yield) },
			"pod deletion":    func() { t.expiryWithin(t.starting(), func(c *child) { c.pod().stop() }) },
			"forced deletion": func() { t.expiryWithin(t.starting(), func(c *child) { c.pod().forget() }) },
			"all restarted":   t.restartedInVain,
			"loop blocked": func() {
				t.expiryWithin(t.starting(), func(c *child) { c.pod().agent().block(2 * t.budget.Duration) })
			},
		})
		return all
	}
	maps.Copy(all, map[string]func(){
		"agent killed": func() { t.safely(t.killAgent) },
		"yield":        func() { t.handover((*child).yield); t.notBy(t.former) },
		"pod deletion": func() { t.handover(func(c *child) { c.pod().stop() }) },
		"yield unread": t.unstored,
		// enroll knows such a gate only by the agent's arguments.
		"opted out, then lease lost": t.unleased,
	})
	return all
}

// starting bounds the time from an acquisition to the start of the application, with
// the gate "pod". In it "agent wait" ends, and the kubelet starts the containers.
func (t *table) starting() time.Duration {
	if t.templates[0].gate == api.GatePod {
		return time.Second
	}
	return 0
}

// restartedInVain: the agent is killed beside the restart of all containers that it
// asked for.
func (t *table) restartedInVain() {
	t.safely(func(c *child) {
		p := c.pod()
		c.yield()
		t.after(between(t.rng, time.Millisecond, 3*time.Second), func() {
			if a := p.agent(); a != nil {
				a.kill()
				p.restartAgent()
			}
		})
	})
}

// unstored: the API server does not store for a while that the pod is not Ready.
func (t *table) unstored() {
	c := t.once(func(c *child) {
		t.weather.patches = t.anyFault()
		c.yield()
	})
	t.pass(between(t.rng, time.Second, 2*t.budget.Duration))
	t.do(func() {
		if !c.alive {
			t.violate(stopped, "%s is no endpoint any more, though no status can be stored", c.name)
		}
		t.weather = fair
	})
}
