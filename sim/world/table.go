// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// table is the story of separate cases, the rows. Each row causes one fault in a healthy world, and
// demands that a pod holds again in time, or that the holder still holds.
type table struct{ *demands }

// newTable returns the story "table": three nodes, enroll, and a workload that the seed draws.
func newTable(w *World) *table {
	for i := range 3 {
		w.newNode(fmt.Sprintf("node-%d", i+1))
	}
	d := engine.Pick(w.Rng, append(durations, time.Minute))
	budget, err := api.NewBudget(d)
	engine.Must(err)
	all := &workloads{World: w, replicas: map[string]int{"web": 3}, longest: d}
	t := &table{&demands{recovery: &recovery{workloads: all}, slot: api.LockLease("a"), budget: budget}}
	t.grace = engine.Between(w.Rng, 3*time.Second, 8*time.Second)
	t.templates = []template{{
		workload: "web", slots: []string{t.slot}, duration: d, grace: t.grace, containers: []string{"app"},
		standBy: true, obedient: true, gate: engine.Pick(w.Rng, gates),
	}}
	if engine.Chance(w.Rng, .3) {
		t.templates[0].containers = append(t.templates[0].containers, "side")
	}
	if engine.Chance(w.Rng, .4) {
		t.templates[0].inits = []string{"migrate", "seed"}
	}
	if engine.Chance(w.Rng, .4) {
		t.templates[0].slots = []string{t.slot, api.LockLease("b")}
	}
	t.slots = t.templates[0].slots
	w.newEnroller("enroll-1")
	for _, n := range w.nodes {
		w.newPod(t.templates[0], n)
	}
	return t
}

// played is the number of rows that a seed plays for pods with shims: about three fifths of
// all such rows, to save time.
const played = 30

// run plays rows in a random order.
func (t *table) run() {
	rows, most := shimRows(t.demands), played
	if gate := t.templates[0].gate; gate != api.GateContainer {
		rows = gateRows(t.demands, gate)
		most = len(rows)
	}
	names := slices.Sorted(maps.Keys(rows))
	t.Rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for _, name := range names[:most] {
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
			t.api.Watches.CutMute() // the next row needs healthy watches
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
