// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"fmt"
	"strconv"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// rolling is a story in which a person applies one revision after the other, while faults happen.
// The invariants of safety must hold all the time. After the faults a pod must hold again, and in
// the end the newest revision must be proven.
type rolling struct {
	*recovery
	trouble *trouble
	number  int64
}

func newRolling(w *world.World) *rolling {
	all := &workloads{World: w, replicas: map[string]int{}}
	r := &rolling{recovery: &recovery{workloads: all}}
	r.trouble = &trouble{workloads: all, takesLeases: engine.Chance(w.Rng, .2)}
	for i := range 3 {
		w.NewNode(fmt.Sprintf("node-%d", i+1))
	}
	t := anyTemplate(w, durations, "web", 3, []string{api.LockLease("a")})
	t.Gate, t.Inits = api.GateContainer, nil
	if engine.Chance(w.Rng, .8) {
		t.EndpointDelay = engine.Between(w.Rng, 100*time.Millisecond, 3*time.Second)
	}
	r.apply(&t)
	all.add(t, 3)
	w.NewEnroller("enroll-1")
	w.API.Latest = max(w.API.Latest, r.longest)
	return r
}

// apply gives the template a new revision, as if a person had changed the template.
func (r *rolling) apply(t *world.Template) {
	r.number++
	t.Revision = api.Revision{Workload: "uid-web", Number: r.number, Hash: "h" + strconv.FormatInt(r.number, 10)}
	r.Note("script", "applies revision %d", r.number)
}

// mostSurge bounds the number of pods that a rollout makes in addition to the replicas.
const mostSurge = 2

// roll applies a new revision, or makes or stops one pod, as a controller does during a rollout.
// Some calls change nothing.
func (r *rolling) roll() {
	t := r.templates[0]
	switch surplus := r.count(t.Workload) - r.replicas[t.Workload]; {
	case engine.Chance(r.Rng, .2):
		r.apply(&r.templates[0])
	case surplus < mostSurge && engine.Chance(r.Rng, .5):
		r.NewPod(t, r.place())
	case surplus > 0:
		engine.Pick(r.Rng, r.Pods).Stop()
	}
}

// run plays the whole story of one seed.
func (r *rolling) run() {
	bound := r.settling() + world.Slow(world.LastResort) + time.Minute
	for range 3 {
		if !r.rolls(engine.Between(r.Rng, 2*time.Minute, 6*time.Minute)) {
			return
		}
		r.Do(r.heal)
		if !r.Until(bound, r.inUse) {
			r.Do(func() { r.stuckSlots("a rollout", bound) })
			return
		}
	}
	r.Do(func() {
		r.killStopped()
		r.apply(&r.templates[0])
		r.NewPod(r.templates[0], r.place())
	})
	// The revision is new, so no failed turn delays its first world. The holder yields only after
	// it has served for the time world.Rest, and may still be in its own turn. If the holder's
	// watch of the next Lease is mute, the holder sees the wish five minutes late.
	last := r.settling() + world.Slow(world.Rest+world.Proof+5*time.Minute) + 2*time.Minute
	if !r.Until(last, r.proven) {
		r.Do(func() { r.Violate(world.Nobody, "%v after the last rollout revision %d is not proven", last, r.number) })
	}
}

// rolls causes faults and rolls out revisions for the time in the argument "last". After a
// violation the result is false.
func (r *rolling) rolls(last time.Duration) bool {
	return disturbFor(r.World, last, 20*time.Second, func() {
		if engine.Chance(r.Rng, .4) {
			r.roll()
		} else {
			r.trouble.strike()
		}
	})
}

// proven reports whether the Lease names the newest revision as proven.
func (r *rolling) proven() bool {
	lease, ok := r.API.Lease(r.slots[0])
	return ok && world.RolloutOf(lease).Proven == r.templates[0].Revision
}
