// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// table checks the demands of each row: in a healthy world one fault happens, and a
// pod holds again, or still holds, in time.
type table struct {
	*chaos
	slot   string
	budget api.Budget
	former *pod
	at     time.Duration // of the cause
}

func (w *World) newTable() *table {
	for i := range 3 {
		w.newNode(fmt.Sprintf("node-%d", i+1))
	}
	d := pick(w.rng, append(durations, time.Minute))
	budget, err := api.NewBudget(d)
	must(err)
	t := &table{chaos: &chaos{World: w, replicas: map[string]int{"web": 3}, longest: d}, slot: api.LockLease("a"), budget: budget}
	t.grace = between(w.rng, 3*time.Second, 8*time.Second)
	t.templates = []template{{
		workload: "web", slots: []string{t.slot}, duration: d, grace: t.grace, containers: []string{"app"},
		standBy: true, obedient: true, gate: pick(w.rng, gates),
	}}
	if chance(w.rng, .3) {
		t.templates[0].containers = append(t.templates[0].containers, "side")
	}
	if chance(w.rng, .4) {
		t.templates[0].inits = []string{"migrate", "seed"}
	}
	if chance(w.rng, .4) {
		t.templates[0].slots = []string{t.slot, api.LockLease("b")}
	}
	t.slots = t.templates[0].slots
	w.newEnroller("enroll-1")
	for _, n := range w.nodes {
		w.newPod(t.templates[0], n)
	}
	return t
}

// rows returns the causes, each with its demands.
func (t *table) rows() map[string]func() {
	return map[string]func(){
		"the child ends":        func() { t.handover(t.each((*child).crash)) },
		"yield":                 func() { t.handover((*child).yield); t.notBy(t.former) },
		"pod deletion":          func() { t.handover(func(c *child) { c.pod().stop() }) },
		"shim killed":           func() { t.handover(t.each(func(c *child) { c.shim.exit() })) },
		"grace run out":         func() { t.handover(t.each(func(c *child) { c.stops = -1; c.pod().stop() })) },
		"agent killed":          func() { t.undisturbed(t.killAgent) },
		"agent in back-off":     func() { t.expiry(func(c *child) { c.pod().agent().kill() }) },
		"agent and shim killed": func() { t.expiry(t.together) },
		"forced deletion":       func() { t.expiry(func(c *child) { c.pod().forget() }) },
		"node gone":             func() { t.expiry(func(c *child) { c.pod().node.crash() }) },
		"network gone":          func() { t.expiry(func(c *child) { c.pod().node.cut(true, true) }) },
		"replies gone":          func() { t.expiry(func(c *child) { c.pod().node.cut(false, true) }) },
		"node suspended":        func() { t.expiry(func(c *child) { c.pod().node.freeze() }) },
		"agent frozen":          func() { t.expiry(func(c *child) { c.pod().agent().freezeAlone() }) },
		"shim frozen":           func() { t.undisturbed(func(c *child) { c.shim.freeze() }) },
		"lease deleted":         func() { t.vanished() },
		"API away for long": func() {
			t.retaken()
		},
		"API away for less than the budget": func() { t.outage() },
		"node restarts":                     func() { t.reboot() },
		"lease deleted, enroll's cache old": t.forgetful,
		"replies lost, then writes":         func() { t.safely(t.unanswered) },
		"agent replaced, writes lost":       func() { t.safely(t.unrenewed) },
		"one lock of two is refused":        func() { t.safely(t.refused) },
		"the granted shim never comes back": func() { t.expiry(t.absent) },
		"application after init containers": t.prepared,
		"init container fails":              t.unprepared,
		"watches end":                       func() { t.undisturbed(func(*child) { t.watchTrouble() }) },
	}
}

// played is the number of rows that a seed plays: two thirds of them, to save time.
const played = 30

// run plays rows in a random order.
func (t *table) run() {
	rows, most := t.rows(), played
	maps.Copy(rows, t.endured())
	if gate := t.templates[0].gate; gate != api.GateContainer {
		rows = t.unguarded(gate)
		most = len(rows)
	}
	names := slices.Sorted(maps.Keys(rows))
	t.rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for _, name := range names[:most] {
		if !t.ready() {
			return
		}
		t.do(func() { t.note("script", "ROW: %s (lease %v)", name, t.budget.Duration) })
		rows[name]()
		if t.verdict != "" {
			t.verdict = name + ": " + t.verdict
			return
		}
		t.do(func() {
			t.heal()
			for _, s := range slices.Clone(t.api.watches) {
				if s.mute {
					s.finish(errBroken) // the rows ask for healthy watches
				}
			}
		})
	}
}

// ready waits until the world is healthy: a child runs, and all other pods have stood
// by for a while.
func (t *table) ready() bool {
	if !t.quiet("the row before") {
		return false
	}
	t.do(func() {
		for _, p := range t.pods {
			for _, c := range p.containers {
				c.failures = 0
			}
		}
	})
	return t.pass(between(t.rng, time.Second, time.Second+t.budget.Renew))
}

func (c *child) crash() { c.exits("crashes", 1) }
func (c *child) yield() { c.pod().agent().agent.Yield() }

func (t *table) killAgent(c *child) {
	c.pod().agent().kill()
	c.pod().restartAgent()
}

// together: both die at once, so neither reports the other's death.
func (t *table) together(c *child) {
	c.pod().agent().kill()
	for _, other := range t.alive(c.hold) {
		other.shim.exit()
	}
	c.pod().restartAgent()
}

// each applies a cause to all children of the hold.
func (t *table) each(cause func(*child)) func(*child) {
	return func(c *child) {
		for _, other := range t.alive(c.hold) {
			cause(other)
		}
	}
}

func (t *table) alive(hold string) []*child {
	return slices.DeleteFunc(slices.Clone(t.ledger.alive), func(c *child) bool { return c.hold != hold })
}

// once does something to the holder, and returns it.
func (t *table) once(cause func(*child)) *child {
	var c *child
	t.do(func() {
		c = t.holder(t.slot)
		cause(c)
		t.former, t.at = c.pod(), t.now()
	})
	return c
}

// quick bounds a handover in fair weather, from the last death. Its report or the
// pidfd (10 ms), two writes (8 ms each), a watch event (4 ms) and a grant (2 ms) take
// 32 ms; twice that if two standbys collide.
const quick = 100 * time.Millisecond

// handover: two writes and a watch event after the child is dead.
func (t *table) handover(cause func(*child)) {
	var all []*child
	c := t.once(func(c *child) { all = t.alive(c.hold); cause(c) })
	if !t.until(t.grace+left+time.Second, func() bool { return none(all) }) {
		t.fail(stopped, "%s lives on", c.name)
		return
	}
	dead := t.lastEnd()
	if !t.until(time.Minute, t.free(c)) {
		t.fail(nobody, "nobody holds a minute after %s is dead", c.name)
		return
	}
	t.do(func() {
		if next := t.next(c); next.began-dead > quick*time.Duration(len(t.slots)) {
			t.violate(nobody, "%s began %v after %s was dead", next.name, next.began-dead, c.name)
		}
	})
}

// notBy demands that another pod holds next: a pod that yields lets the others go
// first.
func (t *table) notBy(p *pod) {
	t.do(func() {
		if c := t.holder(t.slot); c != nil && c.pod() == p {
			t.violate(nobody, "%s yielded to itself", p.name)
		}
	})
}

// late bounds how late an agent notices an instant. Its timers run by true time, and
// its clock may gain a twelfth in the 10 s between two looks.
const late = 900 * time.Millisecond

// expiry: D after the last renewal, by the slowest clock.
func (t *table) expiry(cause func(*child)) { t.expiryWithin(0, cause) }

// expiryWithin demands expiry, within an additional time.
func (t *table) expiryWithin(more time.Duration, cause func(*child)) {
	c := t.once(cause)
	slack := late + more + quick*time.Duration(len(t.slots))
	bound := time.Duration(float64(t.budget.Duration)/(1-skew)) + slack
	// An agent that is cut off one way only may renew once more.
	if most := bound + t.budget.Renew + 2*time.Second; !t.until(most, t.free(c)) {
		t.fail(nobody, "nobody holds after %v", most)
		return
	}
	t.do(func() {
		next := t.next(c)
		var last time.Duration
		for _, slot := range t.slots {
			last = max(last, t.ledger.renewals[key(slot, c.pod().identity(), c.hold)].at)
		}
		if next.began-last > bound {
			t.violate(nobody, "%s began %v after the last renewal", next.name, next.began-last)
		}
	})
}

// undisturbed demands that no child stops for twice the duration.
func (t *table) undisturbed(cause func(*child)) {
	c := t.once(cause)
	t.pass(2 * t.budget.Duration)
	t.stillRuns(c)
}

func (t *table) stillRuns(c *child) {
	t.do(func() {
		if !c.alive || c.asked {
			t.violate(stopped, "%s was stopped", c.name)
		}
	})
}

// outage demands that an outage shorter than the budget stops no child, whenever it
// begins.
func (t *table) outage() {
	c := t.once(func(*child) { t.apiDown() })
	// By the holder's clock; requests were on their way when it began. The agent's
	// timers, which run by true time, miss the renewal and the retry by a twelfth.
	missed := time.Duration(skew * float64(t.budget.Renew+t.budget.Retry))
	last := time.Duration(float64(t.budget.Outage())/c.pod().node.rate) - missed - 20*time.Millisecond
	t.pass(last)
	t.do(t.apiUp)
	t.pass(t.budget.Duration)
	t.stillRuns(c)
}

// retaken: the previous holder goes first, once its hanging request has timed out, and
// a pause of at most a second is over.
func (t *table) retaken() {
	c := t.once(func(*child) { t.apiDown() })
	t.pass(between(t.rng, t.budget.Duration*11/10, 2*t.budget.Duration))
	if c.alive {
		t.fail(outlived, "%s lives %v into the outage", c.name, t.budget.Duration)
		return
	}
	up := t.now()
	t.do(t.apiUp)
	t.until(time.Minute, t.free(c))
	bound := time.Duration(float64(t.budget.RequestTimeout+t.budget.Retry)/(1-skew)) + quick
	t.do(func() {
		next := t.next(c)
		switch {
		case next == nil:
			t.violate(nobody, "nobody holds a minute after the API is back")
		case next.pod() != c.pod():
			t.violate(nobody, "%s holds, not %s that held", next.pod().name, c.pod().name)
		case next.began-up > bound:
			t.violate(nobody, "%s began %v after the API was back, not %v", next.name, next.began-up, bound)
		}
	})
}

// safely demands nothing itself: the invariants judge what happens.
func (t *table) safely(cause func(*child)) {
	t.once(func(c *child) {
		// A child that stops at once would not need the deadline.
		t.each(func(c *child) { c.stops = -1 })(c)
		cause(c)
	})
	t.pass(t.budget.Duration * 13 / 10)
	t.do(func() { t.weather = fair })
}

// unanswered: a renewal is stored, but its answer is lost; when reads work again,
// writes do not. The deadline counts from that renewal.
func (t *table) unanswered(*child) {
	t.weather.unanswered = true
	t.note("script", "no write is answered")
	t.after(t.budget.Renew+between(t.rng, 0, t.budget.Outage()*9/10), func() {
		if t.weather.unanswered {
			t.weather = weather{unstored: true}
			t.note("script", "no write is stored")
		}
	})
}

// refused: the last slot is renewed no more, the others are.
func (t *table) refused(*child) { t.weather.deaf = t.slots[len(t.slots)-1] }

// absent: a new agent meets a fresh shim; the one that was granted is frozen,
// and its child runs.
func (t *table) absent(c *child) {
	c.shim.freeze()
	c.pod().agent().kill()
	c.container.startShim()
	c.pod().restartAgent()
}

// unrenewed: a new agent finds the child and the Lease, and cannot write.
func (t *table) unrenewed(c *child) {
	p := c.pod()
	p.agent().kill()
	t.weather.unstored = true
	t.after(between(t.rng, t.budget.Renew, t.budget.RenewDeadline), func() {
		if !p.stopping && len(p.agents) == 0 {
			p.startAgent()
		}
	})
}

// reboot: the boot id proves that nothing is alive; the pod takes its Lease back as
// soon as its shim waits (3 s), or another pod does.
func (t *table) reboot() {
	c := t.once(func(c *child) { c.pod().node.crash() })
	n := c.pod().node
	t.pass(between(t.rng, 10*time.Millisecond, time.Second))
	slow := chance(t.rng, .5)
	t.do(func() {
		for _, container := range c.pod().containers {
			// The image is being pulled, so no new shim accounts for the earlier one.
			container.pending = slow
		}
		n.reboot()
	})
	up := t.now()
	t.until(time.Minute, t.free(c))
	t.do(func() {
		next := t.next(c)
		if next == nil || next.began-up > 3*time.Second+2*quick {
			t.violate(nobody, "nobody holds %v after the reboot", t.now()-up)
		}
	})
}

// free: another child runs under the slot.
func (t *table) free(before *child) func() bool {
	return func() bool { return t.next(before) != nil }
}

// next returns a child that began after the cause; the earlier child may be frozen,
// and alive. If one of two containers is back before the other is dead, the hold goes
// on.
func (t *table) next(before *child) *child {
	for _, c := range t.ledger.alive {
		if c.has(t.slot) && c != before && c.began > t.at && !c.asked {
			return c
		}
	}
	return nil
}

func none(all []*child) bool {
	for _, c := range all {
		if c.alive {
			return false
		}
	}
	return true
}

func (t *table) lastEnd() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ledger.ends[len(t.ledger.ends)-1].at
}

func (t *table) fail(invariant, what string, args ...any) {
	t.do(func() { t.violate(invariant, what, args...) })
}
