// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// riding is a story of an application that survives outages of the API server. No outage of the length that
// its template names stops it, and it starts again if it exits meanwhile. A longer outage stops it before
// another pod could take the slot.
type riding struct {
	*recovery
	trouble *trouble
}

func newRiding(w *world.World) *riding {
	r, t, replicas := newRide(w, []int{1, 1, 2})
	t.Failsafe.Alone = true
	r.add(t, replicas)
	w.NewEnroller("enroll-1")
	return r
}

// newRide makes a story without pods, and draws the template of the pods, and their number.
func newRide(w *world.World, most []int) (r *riding, t world.Template, replicas int) {
	all := &workloads{World: w, replicas: map[string]int{}}
	r = &riding{recovery: &recovery{workloads: all}, trouble: &trouble{workloads: all}}
	for i := range 3 {
		w.NewNode(fmt.Sprintf("node-%d", i+1))
	}
	replicas = engine.Pick(w.Rng, most)
	t = anyTemplate(w, durations, "web", replicas, []string{rolled})
	t.Gate, t.Inits, t.Restless = api.GateContainer, nil, 0
	t.Behaviour = world.GoodVersion(w.Rng)
	t.Failsafe = api.Failsafe{Outage: engine.Pick(w.Rng, []time.Duration{time.Minute, 3 * time.Minute, 10 * time.Minute})}
	if engine.Chance(w.Rng, .5) {
		t.Revision = api.Revision{Workload: "uid-web", Number: 1, Hash: "h" + strconv.Itoa(w.Rng.IntN(9))}
		t.EndpointDelay = engine.Pick(w.Rng, []time.Duration{0, time.Second})
	}
	return r, t, replicas
}

// run plays the story of one seed.
func (r *riding) run() {
	if !r.serves("the start") {
		return
	}
	steps := []func() bool{r.rides, r.rides, r.rides, r.outlasts, r.cut}
	r.Rng.Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
	for _, step := range append(steps, r.suffers) { // some of those faults begin or end later
		if !step() || !r.serves("an outage") {
			return
		}
	}
}

func (r *riding) template() world.Template { return r.templates[0] }

// serves waits for a while, and until a child serves.
func (r *riding) serves(after string) bool {
	if !r.Pass(world.MostBackOff + engine.Between(r.Rng, 5*time.Second, time.Minute)) {
		return false
	}
	bound := r.settling() + world.Slow(world.LastResort) + world.MostStart + world.MostBackOff + time.Minute
	served := func() bool {
		c := r.Checks.Holder(rolled)
		return c != nil && !c.Asked && c.Serves()
	}
	if !r.Until(bound, served) {
		r.Do(func() { r.Violate(world.Nobody, "%v after %s nobody serves under %s", bound, after, rolled) })
		return false
	}
	return true
}

// outages is the number of kinds of outages.
const outages = 3

// begin begins an outage of the given kind: nothing answers, or writes fail, or writes are stored after the agent
// has given up.
func (r *riding) begin(kind int) {
	switch kind {
	case 0:
		r.API.GoDown()
	case 1:
		r.API.Weather.Puts = engine.Pick(r.Rng, apiserver.Faults)
	default:
		given := world.BudgetOf(r.template().LeaseDuration).RequestTimeout
		r.API.Store = engine.Between(r.Rng, given, 3*given)
	}
	r.Note("script", "an outage: %v, writes take %v more", r.API.Weather, r.API.Store)
}

// end ends the outage.
func (r *riding) end() {
	r.API.Store, r.API.Weather = 0, r.climate
	r.API.ComeUp()
	r.Note("script", "the outage ends")
}

// rides causes an outage that the application must survive. The application may exit in it, or else the
// agent may restart.
func (r *riding) rides() bool { return r.rideOut(func() int { return r.Rng.IntN(outages) }) }

// rideOut causes an outage of the kind.
func (r *riding) rideOut(kind func() int) bool {
	last := fast(engine.Between(r.Rng, r.template().Failsafe.Outage/4, r.template().Failsafe.Outage))
	var c *world.Child
	r.Do(func() {
		c = r.Checks.Holder(rolled)
		r.begin(kind())
	})
	ends := r.Now() + last
	if !r.Pass(engine.Between(r.Rng, 0, last/3)) {
		return false
	}
	doubtful := false
	for _, of := range c.Pod().Containers {
		doubtful = doubtful || len(of.Shims) > 1
	}
	switch what := r.Rng.IntN(4); {
	case doubtful: // a shim of earlier faults raises doubts, which end a hold
	case what == 0:
		if c = r.exits(c); c == nil {
			return false
		}
	case what == 1 && r.template().Failsafe.Alone: // the next process begins without a supporter
		r.Do(func() {
			if a := c.Pod().Agent(); a != nil {
				a.Kill()
				c.Pod().RestartAgent()
			}
		})
	}
	if !r.Pass(max(0, ends-r.Now())) {
		return false
	}
	r.Do(r.end)
	return r.Pass(world.Slow(r.template().LeaseDuration)) && r.runsOn(c)
}

// exits lets the application of the child exit, and demands that it runs again in the same hold once the
// kubelet has started its containers. The result is the new child; nil after a violation.
func (r *riding) exits(c *world.Child) *world.Child {
	r.Do(func() {
		r.Note("script", "%s exits", c.Name)
		c.Exits("exits", 1)
	})
	var next *world.Child
	again := func() bool {
		i := slices.IndexFunc(r.Checks.Alive, func(o *world.Child) bool { return o != c && o.Container == c.Container && o.Hold == c.Hold })
		if i >= 0 {
			next = r.Checks.Alive[i]
		}
		return i >= 0
	}
	bound := world.MostBackOff + 2*time.Second + world.Quick
	if !r.Until(bound, again) {
		r.Do(func() {
			r.Violate(world.Nobody, "%v after its exit in the outage %s does not run again in %s", bound, c.Name, c.Hold)
		})
		return nil
	}
	return next
}

// runsOn demands that nothing has asked the child to stop.
func (r *riding) runsOn(c *world.Child) bool {
	r.Do(func() {
		if !c.Alive || c.Asked {
			r.Violate(world.Stopped, "%s was stopped in an outage of which %v are to stop nothing", c.Name, r.template().Failsafe.Outage)
		}
	})
	verdict, _ := r.Verdict()
	return verdict == ""
}

// outlasts causes an outage that is longer than the Lease lasts. The child must stop in time.
func (r *riding) outlasts() bool {
	var c *world.Child
	r.Do(func() {
		c = r.Checks.Holder(rolled)
		r.API.GoDown()
	})
	if !r.Pass(world.Slow(r.longest) + engine.Between(r.Rng, time.Second, time.Minute)) {
		return false
	}
	r.Do(func() {
		if c.Alive {
			r.Violate(world.Outlived, "%s lives longer than its Lease", c.Name)
		}
		r.end()
	})
	return true
}

// cut cuts off the node of the holder, or crashes it, for longer than the Lease lasts. Another replica must
// take the slot.
func (r *riding) cut() bool {
	var n *world.Node
	r.Do(func() {
		c := r.Checks.Holder(rolled)
		if n = c.Pod().Node; engine.Chance(r.Rng, .3) {
			n.Crash()
		} else {
			n.Cut(true, engine.Chance(r.Rng, .7))
		}
		c.Stops = -1 // only the margin keeps its end apart from the next child
		if engine.Chance(r.Rng, .3) {
			r.trouble.takeLease() // enroll knows for how long its holder may live
		}
	})
	if !slices.ContainsFunc(r.Pods, func(p *world.Pod) bool { return p.Node != n }) {
		if !r.Pass(world.Slow(r.longest)) {
			return false
		}
	} else if !r.Until(r.settling()+world.Slow(r.longest), func() bool {
		c := r.Checks.Holder(rolled)
		return c != nil && c.Pod().Node != n
	}) {
		r.Do(func() { r.Violate(world.Nobody, "%s is cut off, and no other pod takes its slot", n.Name) })
		return false
	}
	r.Do(r.heal)
	return true
}

// suffers lets faults happen.
func (r *riding) suffers() bool {
	fine := disturbFor(r.World, engine.Between(r.Rng, time.Minute, 5*time.Minute), 20*time.Second, r.trouble.strike)
	r.Do(func() {
		r.heal()
		r.killStopped()
	})
	return fine
}
