// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// recovery ends faults, and demands that the slots are in use again.
type recovery struct {
	*workloads
	elector *elector // nil in most worlds
	person  *person  // nil in most worlds
}

// heal ends all faults.
func (r *recovery) heal() {
	r.calm, r.healed = true, r.Now()
	r.Note("script", "heals everything")
	r.api.Weather = r.climate
	r.optedOut = false
	r.api.ComeUp()
	r.api.Watches.Hurry()
	if r.elector != nil {
		r.elector.paused = true
	}
	if r.person != nil {
		r.person.resume()
	}
	for _, n := range r.nodes {
		n.heal()
	}
	for _, p := range slices.Clone(r.pods) {
		p.recover()
	}
	if len(r.enrolls) == 0 {
		r.newEnroller(fmt.Sprintf("enroll-%d", r.Number()))
	}
	r.refill()
}

// killStopped kills the agents that got SIGTERM, as a kubelet does after the grace. An agent that
// got SIGTERM yields to no pod, so without the kill the rollout could not end. The next agent
// process in its container yields.
func (r *recovery) killStopped() {
	for _, p := range r.pods {
		if a := p.agent(); a != nil && a.stopped && !p.stopping {
			a.kill()
		}
	}
}

// quiet demands that the slots are in use in time. If a child ends a while later, quiet waits
// again, but only until the bound. Then [recovery.steady] must find nothing wrong for 20 s. After a
// violation the result is false.
func (r *recovery) quiet(after string) bool {
	bound := r.settling()
	// A fault may have a late effect: a child may drain because its last renewals have
	// failed.
	for end := r.Now() + bound; ; {
		if !r.Until(end-r.Now(), r.inUse) {
			r.Do(func() { r.stuckSlots(after, bound) })
			return false
		}
		ends := r.ends()
		r.Do(func() { r.Note("script", "settled after %s", after) })
		// In this time a standby with a mute watch learns that a person has ended the pause of the
		// slot. If that standby learned of the end later, the next handover might wait for that
		// standby, and exceed the bound.
		if !r.Pass(max(slow(r.longest), r.api.Latest) + 5*time.Second + r.heeding()) {
			return false
		}
		if r.ends() == ends || r.Now() > end {
			return r.steady(20 * time.Second)
		}
	}
}

// inUse reports whether each slot that a healthy pod claims is in use.
func (r *recovery) inUse() bool { return !slices.ContainsFunc(r.slots, r.stuck) }

// stuck reports whether a healthy pod claims the slot, and no child runs under it.
func (r *recovery) stuck(slot string) bool { return r.wanted(slot) && !r.checks.settled(slot) }

// stuckSlots reports each slot that is not in use after the bound, as a violation of the
// invariant "nobody".
func (r *recovery) stuckSlots(after string, bound time.Duration) {
	for _, s := range r.slots {
		if r.stuck(s) {
			r.Violate(nobody, "%s after %s nobody holds %s", bound, after, s)
		}
	}
}

// wanted reports whether a healthy pod claims the slot, and is able to acquire it. A pod for
// another number of shards than the template's does not count, because such a pod waits for ever.
func (r *recovery) wanted(slot string) bool {
	return slices.ContainsFunc(r.pods, func(p *pod) bool {
		return p.healthy() && p.shards == r.sharded && slices.Contains(p.slots, slot) && !r.barred(p, slot)
	})
}

// barred reports whether the pod cannot take the slot. A pod that needs all of its slots is barred
// if another pod holds another one of them. A pod that needs any one of its slots is barred if its
// child already runs under another slot.
func (r *recovery) barred(p *pod, slot string) bool {
	if p.any {
		return slices.ContainsFunc(r.checks.alive, func(c *child) bool { return c.pod() == p && !c.has(slot) && !c.asked && c.current() })
	}
	return slices.ContainsFunc(p.slots, func(other string) bool {
		lease, ok := r.api.Lease(other)
		return other != slot && ok && lease.Holder != p.identity() && r.checks.settled(other)
	})
}

// ends returns the number of children that have ended.
func (r *recovery) ends() int {
	r.Lock()
	defer r.Unlock()
	return len(r.checks.ends)
}

// steady waits for the time in the argument "last". In that time no child may stop, standbys may
// send no requests, and holders may send only renewals. After a violation the result is false.
func (r *recovery) steady(last time.Duration) bool {
	before := map[*agentProcess]int{}
	ends := r.ends()
	r.Do(func() {
		for _, p := range r.pods {
			if a := p.agent(); a != nil {
				before[a] = a.Total()
			}
		}
	})
	if !r.Pass(last) {
		return false
	}
	r.Do(func() {
		for _, child := range r.checks.alive {
			if child.shim == nil {
				r.checkRightful(child)
			}
		}
		if len(r.checks.ends) > ends {
			r.Violate(stopped, "%s ended in quiet times", r.checks.ends[ends].child.name)
		}
		for _, p := range r.pods {
			a := p.agent()
			if n, ok := before[a]; a != nil && ok && r.api.Weather == apiserver.Fair {
				r.checkChatter(a, a.Total()-n, last)
			}
		}
	})
	verdict, _ := r.Verdict()
	return verdict == ""
}

// checkRightful demands that the pod of an application without a shim holds the
// application's slots.
func (r *recovery) checkRightful(child *child) {
	for _, t := range child.slots {
		if lease, ok := r.api.Lease(t.Slot); !ok || lease.Holder != child.pod().identity() {
			r.Violate(outlived, "%s lives in quiet times, and %s is not its pod's", child.name, t.Slot)
		}
	}
}

// checkChatter demands that an agent has sent no more requests than the renewals of its slots. So a
// standby must have sent none.
func (r *recovery) checkChatter(a *agentProcess, sent int, last time.Duration) {
	held := 0
	for _, slot := range a.pod.slots {
		if lease, ok := r.api.Lease(slot); ok && lease.Holder == a.pod.identity() {
			held++
		}
	}
	budget, err := api.NewBudget(a.pod.duration)
	engine.Must(err)
	most := held * (int(float64(last)*(1+skew)/float64(budget.Renew)) + 1)
	if sent > most {
		r.Violate(apiserver.Chatter, "%s holds %d slots and sent %d requests in %v, not %d: in all %v", a.name, held, sent, last, most, a.Sent)
	}
}
