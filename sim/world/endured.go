// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"slices"
	"time"
)

// endured returns the rows of lasting faults, under which the slot must be in use all
// the same.
func (t *table) endured() map[string]func() {
	d := t.budget.Duration
	return map[string]func(){
		"watches are refused (429)":        func() { t.unseen(weather{watches: busy}) },
		"watches are refused (403)":        func() { t.unseen(weather{watches: forbidden}) },
		"watches are never answered":       func() { t.unseen(weather{watches: unheard}) },
		"idle watches are cut":             func() { t.unseen(weather{idle: between(t.rng, d/20, d/6)}) },
		"watches fall silent":              func() { t.unseen(weather{silent: true}) },
		"reads fail, writes do not":        func() { t.undisturbed(func(*child) { t.weather.gets = t.anyFault() }) },
		"watches fail, holder stays":       func() { t.undisturbed(func(*child) { t.weather.watches = t.anyFault() }) },
		"writes fail, reads do not":        func() { t.unwritable(fair) },
		"writes fail, watches do too":      func() { t.unwritable(weather{watches: forbidden}) },
		"one pod, writes and watches fail": t.solitary,
		"lease deleted, then silence":      t.farewell,
		"machine paused":                   t.pausedPastLease,
		"machine paused for a moment":      func() { t.undisturbed(t.pausedBriefly) },
		"clocks are set and slewed":        func() { t.undisturbed(func(*child) { t.otherClocks() }) },
		"loop blocked":                     func() { t.expiry(func(c *child) { c.pod().agent().block(2 * d) }) },
		"loop blocked for a moment":        func() { t.undisturbed(t.blockedBriefly) },
		"container forgotten":              t.forgotten,
		"reports are read late":            t.late,
		"opted out, then Role lost":        func() { t.undisturbed(func(*child) { t.unroled() }) },
		"opted out, then lease lost":       t.unleased,
		"second lock is sealed":            func() { t.starving(func() { t.weather.sealed = t.slots[1] }) },
	}
}

func (t *table) anyFault() fault { return pick(t.rng, []fault{busy, forbidden, failing, unheard}) }

// unseen: the holder ends while watches are of no use.
func (t *table) unseen(w weather) {
	t.do(func() {
		t.weather = w
		t.note("script", "weather %+v", w)
		for _, s := range slices.Clone(t.api.watches) {
			s.finish(errBroken)
		}
	})
	t.pass(between(t.rng, 0, t.budget.Duration))
	more := t.unseeing()
	if w.silent {
		more += t.unmuting()
	}
	t.expiryWithin(more, func(c *child) { c.pod().node.crash() })
}

// unwritable: no write is stored, so the holder's child stops, and no pod can take
// over. As soon as writes are stored again, a pod does, even without useful watches.
func (t *table) unwritable(after weather) {
	what := t.anyFault()
	c := t.once(func(*child) {
		t.weather = after
		t.weather.puts = what
		t.note("script", "weather %+v", t.weather)
		if after.watches != 0 {
			for _, s := range slices.Clone(t.api.watches) {
				s.finish(errBroken)
			}
		}
	})
	t.pass(between(t.rng, t.budget.Duration*11/10, 3*t.budget.Duration))
	if c.alive {
		t.fail(outlived, "%s lives though its slot cannot be renewed", c.name)
		return
	}
	t.do(func() { t.weather = after })
	// The last write may hang.
	bound := slow(t.budget.RequestTimeout) + t.unseeing()
	if !t.until(bound, t.free(c)) {
		t.fail(nobody, "nobody holds %v after writes work again", bound)
	}
	t.do(func() { t.weather = fair })
}

// solitary: the pod that held is alone. So no other pod takes the slot if this one never
// acquires it.
func (t *table) solitary() {
	t.do(func() {
		holder := t.holder(t.slot).pod()
		for _, p := range slices.Clone(t.pods) {
			if p != holder {
				p.stop()
			}
		}
	})
	t.pass(t.grace + left)
	t.unwritable(weather{watches: pick(t.rng, []fault{busy, forbidden, failing})})
}

// farewell: the watches are silent after the Lease's deletion. The holder, which would
// read the Lease anew, is gone, too.
func (t *table) farewell() {
	t.do(func() { t.weather.farewell = true })
	t.vanishedWith(func(c *child) { c.pod().node.crash() })
}

// pausedPastLease: the machine wakes when another pod holds. Its child goes on, and
// is stopped within the time that its agent takes to hear of that.
func (t *table) pausedPastLease() {
	c := t.once(func(c *child) {
		for _, other := range t.alive(c.hold) {
			other.stops = -1 // a child that stops at once would need nobody to end it
		}
		c.pod().node.pause()
	})
	n := c.pod().node
	bound := slow(t.budget.Duration) + late + quick*time.Duration(len(t.slots))
	if !t.until(bound, t.free(c)) {
		t.fail(nobody, "nobody holds %v after the machine was paused", bound)
		return
	}
	t.pass(between(t.rng, 0, t.budget.Duration))
	t.do(n.unpause)
	woke := slow(t.noticing())
	if !t.until(woke, func() bool { return !c.alive }) {
		t.fail(outlived, "%s lives %v after its machine woke, and another holds its slot", c.name, woke)
	}
}

// noticing returns the time for which a child runs on after its machine woke too late,
// by the machine's clock, while the API server answers.
func (t *table) noticing() time.Duration {
	return sum([]part{
		{"the watch of the holder tells, and the agent reads", quick},
		{"killing and reaping", t.budget.Kill},
	})
}

// pausedBriefly pauses the machine for a shorter time than an outage may last.
func (t *table) pausedBriefly(c *child) {
	n := c.pod().node
	n.pause()
	t.after(between(t.rng, 10*time.Millisecond, t.budget.Outage()/2), n.unpause)
}

// otherClocks: each clock goes at another rate, and each wall clock is set.
func (t *table) otherClocks() {
	for _, n := range t.nodes {
		n.slew()
		n.step(n.anyStep())
	}
}

func (t *table) blockedBriefly(c *child) {
	c.pod().agent().block(between(t.rng, 10*time.Millisecond, t.budget.Outage()*9/10))
}

// forgotten: a new kubelet does not know of a container that runs, and starts another;
// the pod's agent is new, too. The agent drains the forgotten container, and the other
// one runs.
func (t *table) forgotten() {
	var fresh *shimProcess
	t.once(func(c *child) {
		c.shim.forgotten = true
		c.pod().agent().kill()
		c.container.startShim()
		fresh = c.container.shims[len(c.container.shims)-1]
		c.pod().restartAgent()
	})
	bound := slow(t.budget.Drain) + t.budget.Kill + 5*time.Second
	t.until(bound, func() bool { return t.settled(t.slot) })
	t.do(func() {
		for _, c := range t.ledger.alive {
			if !c.current() {
				t.violate(nobody, "%s lives in a container that the kubelet has forgotten", c.name)
			}
		}
		if !t.settled(t.slot) {
			t.violate(nobody, "nobody holds %v after %s was started beside a forgotten container", bound, fresh.name)
		}
	})
	t.do(func() {
		for _, p := range t.pods {
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

// late: the loop gets the end of an init container and the death of its shim in one
// report.
func (t *table) late() {
	if len(t.templates[0].inits) == 0 {
		return
	}
	t.templates[0].lateReader = 200 * time.Millisecond
	t.prepared()
	t.templates[0].lateReader = 0
	t.do(func() {
		for _, p := range t.pods {
			p.lateReader = 0
		}
	})
}

// starving: a pod that needs only the first lock acquires it. Pods that need a second
// lock, which is taken, release the first one in time.
func (t *table) starving(cause func()) {
	if len(t.slots) < 2 {
		return
	}
	var modest *pod
	t.once(func(*child) {
		cause()
		modest = t.newPod(template{
			workload: "job", slots: t.slots[:1], duration: t.budget.Duration, grace: t.grace, containers: []string{"app"},
			standBy: true, obedient: true, gate: t.templates[0].gate,
		}, pick(t.rng, t.nodes))
	})
	bound := sum([]part{
		{"the slot is in vain renewed, and then the children are stopped", slow(t.budget.Duration)},
		{"each of the others takes the first slot, waits for the second, stands back", 3 * slow(t.budget.Duration+t.budget.Renew)},
		{"all of them saw nothing of the Lease meanwhile", t.unseeing()},
	})
	runs := func() bool { c := t.holder(t.slot); return c != nil && c.pod() == modest }
	if !t.until(bound, runs) {
		t.fail(nobody, "%s, which needs %s alone, has not run within %v", modest.name, t.slot, bound)
		return
	}
	t.pass(2 * t.budget.Duration)
	t.do(func() {
		if !runs() {
			t.violate(stopped, "%s was stopped", modest.name)
		}
		t.weather = fair
		modest.stop()
	})
	t.until(modest.grace+left, func() bool { return modest.gone })
}

// unroled: the Role is deleted, so no pod can renew until enroll has made it again.
func (t *table) unroled() {
	t.optOut()
	must(t.api.remove("somebody", "Role", RoleName, "", ""))
}

// unleased: the Lease is deleted, so no pod can renew until enroll has made it again.
// The pods of the row still have their gates.
func (t *table) unleased() {
	t.do(t.optOut)
	t.vanished()
}

func (t *table) optOut() {
	t.optedOut = true
	t.note("script", "namespace is opted out, gate %s", t.templates[0].gate)
	for _, e := range t.enrolls {
		e.nudge()
	}
}
