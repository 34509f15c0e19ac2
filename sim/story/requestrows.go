// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"math/rand/v2"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// requestRows has the cases of the story "table" about the network, the API server and its answers.
type requestRows struct{ *demands }

func (r requestRows) rows() map[string]func() {
	d := r.budget.Duration
	return map[string]func(){
		"network gone":                      func() { r.expiry(r.driftApart) },
		"replies gone":                      func() { r.expiry(func(c *world.Child) { c.Pod().Node.Cut(false, true) }) },
		"API away for long":                 r.retaken,
		"API away for less than the budget": r.outage,
		"replies lost, then writes":         func() { r.safely(r.loseReplies) },
		"one lock of two is refused":        func() { r.safely(r.refuseLast) },
		"second lock is sealed":             r.starving,
		"reads fail, writes do not": func() {
			r.undisturbed(func(*world.Child) { r.API.Weather.Gets = engine.Pick(r.Rng, apiserver.Faults) })
		},
		"writes fail, reads do not":        func() { r.unwritable(apiserver.Fair) },
		"writes fail, watches do too":      func() { r.unwritable(apiserver.Weather{Watches: apiserver.Forbidden}) },
		"one pod, writes and watches fail": r.solitary,
		"watches end":                      func() { r.undisturbed(r.breakWatches) },
		"watches fail, holder stays": func() {
			r.undisturbed(func(*world.Child) { r.API.Weather.Watches = engine.Pick(r.Rng, apiserver.Faults) })
		},
		"watches are refused (429)":  func() { r.unseen(apiserver.Weather{Watches: apiserver.Busy}) },
		"watches are refused (403)":  func() { r.unseen(apiserver.Weather{Watches: apiserver.Forbidden}) },
		"watches are never answered": func() { r.unseen(apiserver.Weather{Watches: apiserver.Unheard}) },
		"idle watches are cut":       func() { r.unseen(apiserver.Weather{Idle: engine.Between(r.Rng, d/20, d/6)}) },
		"watches fall silent":        func() { r.unseen(apiserver.Weather{Silent: true}) },
	}
}

func (r requestRows) breakWatches(*world.Child) { r.API.BreakWatches(r.Rng) }

// outage makes the API server unreachable for a little less than the budget allows, and demands
// that no child stops.
func (r requestRows) outage() {
	c := r.once(func(*world.Child) { r.API.GoDown() })
	// The holder's skewed clock measures the outage, but the agent's timers run by true time. So
	// by the holder's clock, the renewal and the retry are late by up to a twelfth of their
	// periods. The outage is shorter by this delay, and by some time for the requests that are
	// on their way when the outage begins.
	missed := time.Duration(world.Skew * float64(r.budget.Renew+r.budget.Retry))
	last := time.Duration(float64(r.budget.Outage())/c.Pod().Node.Rate) - missed - 20*time.Millisecond
	r.Pass(last)
	r.Do(r.API.ComeUp)
	r.Pass(r.budget.Duration)
	r.stillRuns(c)
}

// retaken demands that the pod that held before a long outage of the API server is the first to
// hold after the outage. Before that pod acquires the slot again, its hanging request times out,
// and the pod waits for at most a second.
func (r requestRows) retaken() {
	c := r.once(func(*world.Child) { r.API.GoDown() })
	r.Pass(engine.Between(r.Rng, r.budget.Duration*11/10, 2*r.budget.Duration))
	if c.Alive {
		r.fail(world.Outlived, "%s lives %v into the outage", c.Name, r.budget.Duration)
		return
	}
	up := r.Now()
	r.Do(r.API.ComeUp)
	r.Until(time.Minute, r.free(c))
	bound := time.Duration(float64(r.budget.RequestTimeout+r.budget.Retry)/(1-world.Skew)) + world.Quick
	r.Do(func() {
		next := r.next(c)
		switch {
		case next == nil:
			r.Violate(world.Nobody, "nobody holds a minute after the API is back")
		case next.Pod() != c.Pod():
			r.Violate(world.Nobody, "%s holds, not %s that held", next.Pod().Name, c.Pod().Name)
		case next.Began-up > bound:
			r.Violate(world.Nobody, "%s began %v after the API was back, not %v", next.Name, next.Began-up, bound)
		}
	})
}

// loseReplies makes the network lose the answers to stored renewals, and makes all reads fail.
// After a while reads work again, but no write is stored. The deadline counts from the last stored
// renewal.
func (r requestRows) loseReplies(*world.Child) {
	r.API.Weather.Unanswered = true
	r.Note("script", "no write is answered")
	r.After(r.budget.Renew+engine.Between(r.Rng, 0, r.budget.Outage()*9/10), func() {
		if r.API.Weather.Unanswered {
			r.API.Weather = apiserver.Weather{Unstored: true}
			r.Note("script", "no write is stored")
		}
	})
}

// refuseLast makes the server refuse the renewals of the last slot, and store the
// renewals of the other slots.
func (r requestRows) refuseLast(*world.Child) { r.API.Weather.Deaf = r.slots[len(r.slots)-1] }

// unseen crashes the holder's node while watches are of no use, and demands that a standby takes
// over in time.
func (r requestRows) unseen(w apiserver.Weather) {
	r.Do(func() {
		r.API.Weather = w
		r.Note("script", "weather %v", w)
		r.API.Watches.Cut()
	})
	r.Pass(engine.Between(r.Rng, 0, r.budget.Duration))
	more := r.unseeing()
	if w.Silent {
		more += r.unmuting()
	}
	r.expiryWithin(more, func(c *world.Child) { c.Pod().Node.Crash() })
}

// unwritable makes all writes fail, so the holder's child must stop, and no pod can take
// over. Once writes work again, a pod must hold soon, even if the weather "after" makes all
// watches fail.
func (r requestRows) unwritable(after apiserver.Weather) {
	what := engine.Pick(r.Rng, apiserver.Faults)
	c := r.once(func(*world.Child) {
		r.API.Weather = after
		r.API.Weather.Puts = what
		r.Note("script", "weather %v", r.API.Weather)
		if after.Watches != 0 {
			r.API.Watches.Cut()
		}
	})
	r.Pass(engine.Between(r.Rng, r.budget.Duration*11/10, 3*r.budget.Duration))
	if c.Alive {
		r.fail(world.Outlived, "%s lives though its slot cannot be renewed", c.Name)
		return
	}
	r.Do(func() { r.API.Weather = after })
	// A write that began before this change of the weather may hang until its timeout.
	bound := world.Slow(r.budget.RequestTimeout) + r.unseeing()
	if !r.Until(bound, r.free(c)) {
		r.fail(world.Nobody, "nobody holds %v after writes work again", bound)
	}
	r.Do(func() { r.API.Weather = apiserver.Fair })
}

// solitary stops all standbys, so that only the former holder can acquire the slot
// again. Then writes and watches fail.
func (r requestRows) solitary() {
	r.stopStandbys()
	r.unwritable(apiserver.Weather{Watches: engine.Pick(r.Rng, []apiserver.Fault{apiserver.Busy, apiserver.Forbidden, apiserver.Failing})})
}

// starving demands that a pod that needs only the first lock acquires that lock. The server refuses
// the second lock to all pods. So the pods that need both locks must release the first lock in
// time.
func (r requestRows) starving() {
	if len(r.slots) < 2 {
		return
	}
	var modest *world.Pod
	r.once(func(*world.Child) {
		r.API.Weather.Sealed = r.slots[1]
		modest = r.NewPod(world.Template{
			Workload: "job", Slots: r.slots[:1], Settings: api.Settings{LeaseDuration: r.budget.Duration}, Grace: r.grace, Containers: []string{"app"},
			StandBy: true, Obedient: true, Gate: r.templates[0].Gate,
		}, engine.Pick(r.Rng, r.Nodes))
	})
	bound := sum([]part{
		{"the holder renews in vain, and then its children are stopped", world.Slow(r.budget.Duration)},
		{"each other pod takes the first slot, waits for the second, stands back", 3 * world.Slow(r.budget.Duration+r.budget.Renew)},
		{"all of them saw nothing of the Lease meanwhile", r.unseeing()},
	})
	runs := func() bool { c := r.Checks.Holder(r.slot); return c != nil && c.Pod() == modest }
	if !r.Until(bound, runs) {
		r.fail(world.Nobody, "%s, which needs %s alone, has not run within %v", modest.Name, r.slot, bound)
		return
	}
	r.Pass(2 * r.budget.Duration)
	r.Do(func() {
		if !runs() {
			r.Violate(world.Stopped, "%s was stopped", modest.Name)
		}
		r.API.Weather = apiserver.Fair
		modest.Stop()
	})
	r.Until(modest.Grace+world.Left, func() bool { return modest.Gone })
}

// driftApart gives the holder's node the slowest clock that is allowed, and all other nodes the
// fastest. Then the function cuts the holder's node off. The holder's children ignore SIGTERM.
// So the margin of the lease alone keeps them from living beside the next child.
func (r requestRows) driftApart(c *world.Child) {
	r.each(ignoreStop)(c)
	for _, n := range r.Nodes {
		rate := 1 + world.Skew
		if n == c.Pod().Node {
			rate = 1 - world.Skew
		}
		n.SetRate(rate)
	}
	c.Pod().Node.Cut(true, true)
}

// emptyWatches has the case of the story "table" in which a proxy ends each watch at once, without an
// error and without an event. The case has a random source of its own.
type emptyWatches struct {
	*demands
	rng *rand.Rand
}

// leaves stops the holder's pod, and demands that the standbys learn of the release by their reads.
func (e emptyWatches) leaves() {
	e.Do(func() {
		e.API.Weather = apiserver.Weather{Watches: apiserver.Empty}
		e.Note("script", "weather %v", e.API.Weather)
		e.API.Watches.Cut()
	})
	e.Pass(engine.Between(e.rng, 0, e.budget.Duration))
	read := world.Slow(min(world.Slowest, e.longest/6)) + world.Quick
	e.handoverWithin(time.Duration(len(e.slots))*2*read, stopPod)
	e.Do(func() { e.API.Weather = apiserver.Fair })
}
