// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"maps"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// gateRows returns the cases of the story "table" for pods without shims, by their names. The gate
// of these pods is "pod" or "readiness".
func gateRows(d *demands, gate api.Gate) map[string]func() {
	all := withoutShims{d, d.starting()}.rows()
	if gate == api.GatePod {
		maps.Copy(all, podRows{d, d.starting()}.rows())
	} else {
		maps.Copy(all, readinessRows{d}.rows())
	}
	return all
}

// starting bounds the time from an acquisition to the start of the application. In a
// pod of the gate "pod", "agent wait" ends in that time, and the kubelet starts the
// containers.
func (d *demands) starting() time.Duration {
	if d.templates[0].Gate == api.GatePod {
		return time.Second
	}
	return 0
}

// withoutShims has the cases of the story "table" that apply to all pods without shims, whether
// their gate is "pod" or "readiness".
type withoutShims struct {
	*demands
	starts time.Duration // the bound that demands.starting returns
}

func (r withoutShims) rows() map[string]func() {
	processes, machines, requests := processRows{r.demands}, machineRows{r.demands}, requestRows{r.demands}
	return map[string]func(){
		"node gone":                         func() { r.expiryWithin(r.starts, func(c *world.Child) { c.Pod().Node.Crash() }) },
		"network gone":                      func() { r.expiryWithin(r.starts, func(c *world.Child) { c.Pod().Node.Cut(true, true) }) },
		"replies gone":                      func() { r.expiryWithin(r.starts, func(c *world.Child) { c.Pod().Node.Cut(false, true) }) },
		"node suspended":                    func() { r.expiryWithin(r.starts, func(c *world.Child) { c.Pod().Node.Freeze() }) },
		"agent in back-off":                 func() { r.expiryWithin(r.starts, func(c *world.Child) { c.Pod().Agent().Kill() }) },
		"agent frozen":                      func() { r.expiryWithin(r.starts, func(c *world.Child) { c.Pod().Agent().FreezeAlone() }) },
		"machine paused":                    func() { r.safely(func(c *world.Child) { c.Pod().Node.Pause() }) },
		"machine paused briefly":            func() { r.undisturbed(machines.pauseBriefly) },
		"clocks are set and slewed":         func() { r.undisturbed(machines.changeClocks) },
		"watches end":                       func() { r.undisturbed(requests.breakWatches) },
		"loop blocked for a moment":         func() { r.undisturbed(processes.blockBriefly) },
		"API away for less than the budget": requests.outage,
		"writes fail":                       func() { r.safely(func(*world.Child) { r.API.Weather.Puts = engine.Pick(r.Rng, apiserver.Faults) }) },
		"replies lost, then writes":         func() { r.safely(requests.loseReplies) },
	}
}

// podRows has the cases of the story "table" that apply to the gate "pod" alone.
type podRows struct {
	*demands
	starts time.Duration // the bound that demands.starting returns
}

func (r podRows) rows() map[string]func() {
	return map[string]func(){
		"agent killed":    func() { r.undisturbed(replaceAgent) },
		"yield":           func() { r.expiryWithin(r.starts, yield) },
		"pod deletion":    func() { r.expiryWithin(r.starts, stopPod) },
		"forced deletion": func() { r.expiryWithin(r.starts, func(c *world.Child) { c.Pod().Forget() }) },
		"all restarted":   func() { r.safely(r.replaceYielding) },
		"loop blocked": func() {
			r.expiryWithin(r.starts, func(c *world.Child) { c.Pod().Agent().Block(2 * r.budget.Duration) })
		},
	}
}

// pauseThenCut pauses the holder's machine for more than half of a lease duration, and cuts the
// machine off when it wakes. The invariants demand that the agent stops the application before
// another pod starts its own, although the clock of the agent stood still. In a short lease no time
// is left after such a pause, so pauseThenCut does nothing.
func (r podRows) pauseThenCut() {
	b := r.budget
	// After the pause, the wall clock is set right, a renewal times out, and the kubelet stops the
	// application. A twelfth of the lease duration remains as a margin.
	pause := b.Duration - b.Renew - b.RequestTimeout - world.MostUnfrozen - world.MostKubelet - b.Duration/12
	if pause <= b.RenewDeadline {
		return
	}
	c := r.once(func(c *world.Child) { c.Pod().Node.Pause() })
	r.Pass(pause)
	r.Do(func() {
		c.Pod().Node.Cut(true, true)
		c.Pod().Node.Unpause()
	})
	r.Pass(2 * b.Duration)
}

// replaceYielding replaces the agent process after its yield, while the kubelet is about
// to restart all containers.
func (r podRows) replaceYielding(c *world.Child) {
	p := c.Pod()
	yield(c)
	r.After(engine.Between(r.Rng, time.Millisecond, 3*time.Second), func() {
		if a := p.Agent(); a != nil {
			a.Kill()
			p.RestartAgent()
		}
	})
}

// readinessRows has the cases of the story "table" for the gate "readiness".
type readinessRows struct{ *demands }

func (r readinessRows) rows() map[string]func() {
	return map[string]func(){
		"agent killed": func() { r.safely(replaceAgent) },
		"yield":        func() { r.handover(yield); r.notByFormer() },
		"pod deletion": func() { r.handover(stopPod) },
		"yield unread": r.unstored,
		// After the opt-out, enroll makes a Lease again only for pods with a gate. Enroll
		// recognizes the gate "readiness" by the agent's arguments, so the cache of enroll must
		// keep these arguments.
		"opted out, then lease lost": leaseRows(r).unleased,
	}
}

// unstored makes the status patches of a yielding pod fail, so the stored status stays Ready.
// While the stored status is Ready, the world treats the pod as a running child. That child must
// live on.
func (r readinessRows) unstored() {
	c := r.once(func(c *world.Child) {
		r.API.Weather.Patches = engine.Pick(r.Rng, apiserver.Faults)
		yield(c)
	})
	r.Pass(engine.Between(r.Rng, time.Second, 2*r.budget.Duration))
	r.Do(func() {
		if !c.Alive {
			r.Violate(world.Stopped, "%s is no endpoint any more, though no status can be stored", c.Name)
		}
		r.API.Weather = apiserver.Fair
	})
}
