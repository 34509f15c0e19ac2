// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"time"

	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// restoring causes the faults of the story "chaos". At the end of each time of faults, a person
// restores the API server's objects, as docs/operate/restore-etcd.md describes. The snapshot is from a random
// instant of that time. All leases are short, because the person waits for the longest one.
type restoring struct{ *chaos }

// run plays the story of one seed.
func (r restoring) run() {
	if !r.quiet("the start") {
		return
	}
	for range 3 {
		began := r.Now()
		if !r.disturb(r.scale() * engine.Between(r.Rng, 20*time.Second, 60*time.Second)) {
			return
		}
		var snapshot time.Duration
		r.Do(func() {
			snapshot = engine.Between(r.Rng, began, r.Now())
			r.API.Lose()
		})
		// Before the restore, a person waits for the longest lease duration, by the slowest clock.
		// During that wait, each application with a shim must stop.
		if !r.Pass(world.Slow(r.longest)) {
			return
		}
		r.Do(func() {
			r.checkStopped()
			r.API.Restore(snapshot)
			r.heal()
		})
		if !r.quiet("the restore") {
			return
		}
	}
	r.parade()
}

// checkStopped demands that no application with a shim outlives its slot while a person waits
// for the longest lease duration before the restore. Applications on a paused machine are
// excused.
func (r restoring) checkStopped() {
	for _, c := range r.Checks.Alive {
		if c.Shim != nil && c.Current() && !c.Pod().Node.Paused {
			r.Checks.CheckOutlived(c)
		}
	}
}
