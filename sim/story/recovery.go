// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"fmt"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// recovery ends faults, and demands that the slots are in use again.
type recovery struct {
	*workloads
	elector *world.Elector // nil in most worlds
	person  *person        // nil in most worlds
}

// heal ends all faults.
func (r *recovery) heal() {
	r.Calm, r.Healed = true, r.Now()
	r.API.Store, r.API.Commit = 0, 0
	r.Note("script", "heals everything")
	r.API.Weather = r.climate
	r.OptedOut = false
	r.API.ComeUp()
	r.API.Watches.Hurry()
	if r.elector != nil {
		r.elector.Paused = true
	}
	if r.person != nil {
		r.person.resume()
	}
	for _, n := range r.Nodes {
		n.Heal()
	}
	for _, p := range slices.Clone(r.Pods) {
		p.Recover()
	}
	if len(r.Enrolls) == 0 {
		r.NewEnroller(fmt.Sprintf("enroll-%d", r.Number()))
	}
	r.refill()
}

// killStopped kills the agents that got SIGTERM, as a kubelet does after the grace. An agent that
// got SIGTERM yields to no pod, so without the kill a rollout could not end. The next agent process
// in its container yields.
func (r *recovery) killStopped() {
	for _, p := range r.Pods {
		if a := p.Agent(); a != nil && a.Stopped && !p.Stopping {
			a.Kill()
		}
	}
}

// quiet demands that the slots are in use in time. If a child ends a while later, the method waits
// again, but only until the bound. Then [recovery.steady] must find nothing wrong for 20 s. After a
// violation the result is false.
func (r *recovery) quiet(after string) bool {
	bound := r.settling()
	// A fault may have a late effect: a pod may drain its child because the pod's last renewals have
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
		if !r.Pass(max(world.Slow(r.longest), r.API.Latest) + 5*time.Second + r.heeding()) {
			return false
		}
		if r.ends() == ends || r.Now() > end {
			return r.steady(20 * time.Second)
		}
	}
}

// inUse reports whether each slot that a healthy pod claims is in use.
func (r *recovery) inUse() bool { return !slices.ContainsFunc(r.slots, r.stuck) }

// stuck reports whether a healthy pod claims the slot, and neither a child nor an elector works
// under the slot.
func (r *recovery) stuck(slot string) bool { return r.wanted(slot) && !r.Checks.InUse(slot) }

// stuckSlots reports each slot that is not in use after the bound, as a violation of the
// invariant "nobody".
func (r *recovery) stuckSlots(after string, bound time.Duration) {
	for _, s := range r.slots {
		if r.stuck(s) {
			r.Violate(world.Nobody, "%s after %s nobody holds %s", bound, after, s)
		}
	}
}

// wanted reports whether a healthy pod claims the slot, and is able to acquire it. A pod whose
// number of shards differs from the template's number does not count, because such a pod waits for
// ever.
func (r *recovery) wanted(slot string) bool {
	return slices.ContainsFunc(r.Pods, func(p *world.Pod) bool {
		return p.Healthy() && p.Shards == r.Sharded && slices.Contains(p.Slots, slot) && !r.barred(p, slot)
	})
}

// barred reports whether the pod cannot take the slot. A pod that needs all of its slots is barred
// if another pod holds another of these slots. A pod that needs any one of its slots is barred if
// its child already runs under another slot.
func (r *recovery) barred(p *world.Pod, slot string) bool {
	if p.Any {
		return slices.ContainsFunc(r.Checks.Alive, func(c *world.Child) bool { return c.Pod() == p && !c.Has(slot) && !c.Asked && c.Current() })
	}
	return slices.ContainsFunc(p.Slots, func(other string) bool {
		lease, ok := r.API.Lease(other)
		return other != slot && ok && lease.Holder != p.Identity() && r.Checks.InUse(other)
	})
}

// ends returns the number of children that have ended.
func (r *recovery) ends() int {
	r.Lock()
	defer r.Unlock()
	return len(r.Checks.Ends)
}

// steady waits for the time in the argument "last". In that time no child may stop, standbys may
// send no requests, and holders may send only renewals. After a violation the result is false.
func (r *recovery) steady(last time.Duration) bool {
	before := map[*world.AgentProcess]int{}
	ends := r.ends()
	r.Do(func() {
		for _, p := range r.Pods {
			if a := p.Agent(); a != nil {
				before[a] = a.Total()
			}
		}
	})
	if !r.Pass(last) {
		return false
	}
	r.Do(func() {
		for _, child := range r.Checks.Alive {
			if child.Shim == nil {
				r.checkRightful(child)
			}
		}
		if len(r.Checks.Ends) > ends {
			r.Violate(world.Stopped, "%s ended in quiet times", r.Checks.Ends[ends].Child.Name)
		}
		for _, p := range r.Pods {
			a := p.Agent()
			if n, ok := before[a]; a != nil && ok && r.API.Weather == apiserver.Fair {
				r.checkChatter(a, a.Total()-n, last)
			}
		}
	})
	verdict, _ := r.Verdict()
	return verdict == ""
}

// checkRightful demands that the pod of an application without a shim holds the
// application's slots.
func (r *recovery) checkRightful(child *world.Child) {
	for _, t := range child.Slots {
		if lease, ok := r.API.Lease(t.Slot); !ok || lease.Holder != child.Pod().Identity() {
			r.Violate(world.Outlived, "%s lives in quiet times, and %s is not its pod's", child.Name, t.Slot)
		}
	}
}

// silence is the time for which a standby trusts a watch without an event, at most.
const silence = 5 * time.Minute

// checkChatter demands that an agent has sent no more requests than the renewals of its slots. So a
// standby must have sent none, unless two renewals of the holder, whose lease may be longer than the
// standby's own, lie further apart than the standby trusts a silent watch: then it may read and watch the
// slot anew.
func (r *recovery) checkChatter(a *world.AgentProcess, sent int, last time.Duration) {
	held, silent := 0, 0
	for _, slot := range a.Pod.Slots {
		switch lease, ok := r.API.Lease(slot); {
		case !ok:
		case lease.Holder == a.Pod.Identity():
			held++
		case float64(api.RenewPeriod(time.Duration(lease.DurationSeconds)*time.Second))*(1+world.Skew) > float64(silence):
			silent++
		}
	}
	budget, err := api.NewBudget(a.Pod.LeaseDuration)
	engine.Must(err)
	most := held*(int(float64(last)*(1+world.Skew)/float64(budget.Renew))+1) + 2*silent
	if sent > most {
		r.Violate(apiserver.Chatter, "%s holds %d slots and sent %d requests in %v, not %d: in all %v", a.Name, held, sent, last, most, a.Sent)
	}
}
