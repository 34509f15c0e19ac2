// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// table is the story of separate cases, the rows. Each row causes one fault in a healthy world, and
// demands that a pod holds again in time, or that the holder still holds.
type table struct{ *demands }

// newTable returns the story "table": three nodes, enroll, and a workload that the seed draws.
func newTable(w *world.World) *table {
	for i := range 3 {
		w.NewNode(fmt.Sprintf("node-%d", i+1))
	}
	d := engine.Pick(w.Rng, append(durations, time.Minute))
	budget, err := api.NewBudget(d)
	engine.Must(err)
	all := &workloads{World: w, replicas: map[string]int{"web": 3}, longest: d}
	t := &table{&demands{recovery: &recovery{workloads: all}, slot: api.LockLease("a"), budget: budget}}
	t.grace = engine.Between(w.Rng, 3*time.Second, 8*time.Second)
	t.templates = []world.Template{{
		Workload: "web", Slots: []string{t.slot}, Settings: api.Settings{LeaseDuration: d}, Grace: t.grace, Containers: []string{"app"},
		StandBy: true, Obedient: true, Gate: engine.Pick(w.Rng, world.Gates),
	}}
	if engine.Chance(w.Rng, .3) {
		t.templates[0].Containers = append(t.templates[0].Containers, "side")
	}
	if engine.Chance(w.Rng, .4) {
		t.templates[0].Inits = []string{"migrate", "seed"}
	}
	if engine.Chance(w.Rng, .4) {
		t.templates[0].Slots = []string{t.slot, api.LockLease("b")}
	}
	t.slots = t.templates[0].Slots
	w.NewEnroller("enroll-1")
	for _, n := range w.Nodes {
		w.NewPod(t.templates[0], n)
	}
	return t
}

// played is the number of rows that a seed plays for pods with shims: about three fifths of
// all such rows, to save time.
const played = 30

// run plays rows in a random order.
func (t *table) run() {
	rows, most := shimRows(t.demands), played
	if gate := t.templates[0].Gate; gate != api.GateContainer {
		rows = gateRows(t.demands, gate)
		most = len(rows)
	}
	names := slices.Sorted(maps.Keys(rows))
	t.Rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	names = names[:most]
	if t.templates[0].Gate == api.GatePod {
		const last = "machine paused, then cut off" // last, so that the draws of the other rows stay
		rows[last] = podRows{t.demands, t.starting()}.pauseThenCut
		names = append(names, last)
	}
	if t.templates[0].Gate == api.GateContainer {
		last := breakRows{t.demands, t.Source("breaks")}
		maps.Copy(rows, last.rows())
		const empty = "watches are empty, holder leaves"
		rows[empty] = emptyWatches{t.demands, t.Source("empty watches")}.leaves
		names = append(names, last.last(), empty)
	}
	for _, name := range names {
		if !t.ready() {
			return
		}
		t.Do(func() { t.Note("script", "ROW: %s (lease %v)", name, t.budget.Duration) })
		rows[name]()
		if t.Blame(name) {
			return
		}
		t.Do(func() {
			t.heal()
			t.API.Watches.CutMute() // the next row needs healthy watches
		})
	}
}

// shimRows returns the cases of the story "table" for pods with shims.
func shimRows(d *demands) map[string]func() {
	all := map[string]func(){}
	for _, rows := range []map[string]func(){
		processRows{d}.rows(), machineRows{d}.rows(), requestRows{d}.rows(), leaseRows{d}.rows(), initRows{d}.rows(),
	} {
		maps.Copy(all, rows)
	}
	return all
}

// Each function below is a cause that a case of the story "table" applies to a child, or to the
// child's pod.

func crash(c *world.Child)      { c.Exits("crashes", 1) }
func yield(c *world.Child)      { c.Pod().Agent().Yield() }
func stopPod(c *world.Child)    { c.Pod().Stop() }
func ignoreStop(c *world.Child) { c.Stops = -1 }

// replaceAgent kills the agent, and the kubelet starts another agent process.
func replaceAgent(c *world.Child) {
	c.Pod().Agent().Kill()
	c.Pod().RestartAgent()
}
