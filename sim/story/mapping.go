// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// mapping is a story of Jobs with shards. Jobs of one name follow each other while faults happen,
// and some of their pods exist at the same time. The invariants of safety must hold all the time.
// After the faults each shard of the last Job must become done, and every pod of the Jobs must
// end. Other pods have a condition, and wait until all shards of a Job are done.
type mapping struct {
	*recovery
	trouble *trouble
	waiters *waiters
	// random is the random source of the Jobs and of their controller, which draw with the
	// world's mutex held. The goroutine that plays the story draws from the source of the engine,
	// often without the mutex.
	random *rand.Rand
	// written is the number of shards in the template of the last Job, if a person has changed the
	// template; zero otherwise.
	written int
	// absent reports that a person has deleted the last Job, but not its pods.
	absent bool
	// sure is the instant after which no process of enroll writes the stamp of an earlier Job. The
	// story sometimes makes such a process take an earlier Job for the last Job.
	sure time.Duration
}

// mapGroup is the group to which the Leases of all Jobs in the story [mapping] belong.
var mapGroup = api.ShardGroup(world.MapWorkload)

// mostMappers bounds the number of Jobs in the story [mapping].
const mostMappers = 10

func newMapping(w *world.World) *mapping {
	j, t := newEnding(w, "map", "")
	t.Containers, t.Any = []string{"app"}, false
	if engine.Chance(w.Rng, .3) {
		t.Restless = t.Ends
	}
	t.Slots = world.SlotsOfJob(mostMapped)
	j.begin(t)
	if engine.Chance(w.Rng, .5) {
		w.NewEnroller("enroll-2")
	}
	m := &mapping{recovery: j.recovery, trouble: j.trouble, random: w.Source("mapping")}
	m.next()
	m.plan()
	m.waiters = newWaiters(w, m.conditions)
	return m
}

// conditions draws the condition of a pod that waits for all shards of a Job. In some pods the
// condition names no run, and is about the run that the stamps name.
func (m *mapping) conditions(r *rand.Rand) []api.Condition {
	c := api.Condition{Lease: mapGroup}
	switch n := r.IntN(10); {
	case n < 6:
		c.Key = world.LastJob(m.World).UID
	case n == 6:
		c.Key = engine.Pick(r, m.Mapped).UID
	}
	return []api.Condition{c}
}

// next deletes the Job, and makes the Job anew with another uid. The pods of the deleted Job end a
// little later, and some of these pods run on although their objects are gone.
func (m *mapping) next() {
	of := world.ShardedJob{UID: fmt.Sprintf("%d-a", len(m.Mapped)+1), Shards: 1 + m.random.IntN(mostMapped), Indexed: engine.Chance(m.random, .4)}
	of.AtOnce = 1 + m.random.IntN(of.Shards+1)
	m.written, m.absent = 0, false
	m.Mapped, m.Sharded = append(m.Mapped, of), of.Shards
	m.Note("script", "Job %s begins, with %d shards (indexed %v)", of.UID, of.Shards, of.Indexed)
	for _, p := range slices.Clone(m.Pods) {
		if p.Object && !p.Stopping && !p.Orphaned {
			if engine.Chance(m.random, .3) {
				p.Forget()
			}
			m.After(engine.Between(m.random, time.Millisecond, 20*time.Second), p.Stop)
		}
	}
	m.nudge()
}

// nudge reports a change to enroll.
func (m *mapping) nudge() {
	for _, e := range m.Enrolls {
		e.Nudge()
	}
}

// plan calls [mapping.control] at random times, if the API server can be reached.
func (m *mapping) plan() {
	m.After(engine.Between(m.random, 10*time.Millisecond, 3*time.Second), func() {
		if !m.API.Away {
			m.control()
		}
		m.plan()
	})
}

// control makes a pod of the last Job if a shard of that Job is not done. The Job never has more
// pods than its parallelism allows. A deleted Job gets no new pod. A real Job also ends after a
// given number of successful pods. In the simulation no Job ever reaches that number.
func (m *mapping) control() {
	of := world.LastJob(m.World)
	undone := world.Undone(m.World, of)
	mine := slices.DeleteFunc(slices.Clone(m.Pods), func(p *world.Pod) bool { return !m.stays(p) || p.Key != of.UID })
	if of.Indexed {
		undone = slices.DeleteFunc(undone, func(slot string) bool {
			return slices.ContainsFunc(mine, func(p *world.Pod) bool { return p.Slots[0] == slot })
		})
	}
	if len(undone) == 0 || len(mine) >= of.AtOnce {
		return
	}
	if m.absent {
		return
	}
	t, shards := m.templates[0], cmp.Or(m.written, of.Shards)
	t.Run, t.Shards, t.Claims = of.UID, shards, world.SlotsOfJob(shards)
	t.Slots, t.Any = t.Claims, shards > 1
	if of.Indexed {
		t.Slots, t.Any = []string{engine.Pick(m.random, undone)}, false
	}
	m.NewPod(t, m.place())
	m.nudge()
}

// stays reports whether the API server has the pod, and the pod is not being stopped.
func (m *mapping) stays(p *world.Pod) bool { return p.Object && !p.Stopping }

// orphan deletes the last Job, but not its pods, which continue to work on their shards. A while
// later a person makes the Job anew.
func (m *mapping) orphan() {
	m.Note("script", "Job %s is deleted without its pods", world.LastJob(m.World).UID)
	m.absent = true
	for _, p := range m.Pods {
		if p.Object && p.Run != "" {
			p.Orphaned = true
			p.Register()
		}
	}
	m.nudge()
	m.After(engine.Between(m.random, time.Second, 40*time.Second), func() {
		if m.absent {
			m.next()
		}
	})
}

// rewrite changes the number of shards in the template of the last Job, as a person may while the
// Job is suspended. The run keeps its number of shards, so pods of the new template wait in vain.
// The template of a deleted or an Indexed Job does not change.
func (m *mapping) rewrite() {
	of := world.LastJob(m.World)
	first := m.API.Object("Lease", world.SlotsOfJob(1)[0]).Last().Lease
	if m.absent || of.Indexed || first == nil || world.StampOf(first).Run != of.UID || m.Now() < m.sure {
		return // the Leases may have no stamp of this Job yet, or enroll may replace the stamp by mistake
	}
	m.written = 1 + m.random.IntN(mostMapped)
	m.Note("script", "the template of Job %s has %d shards", of.UID, m.written)
	for _, p := range slices.Clone(m.Pods) {
		if m.stays(p) && p.Run == of.UID {
			p.Stop()
		}
	}
}

// disturb causes a fault, a new Job, or a mistake of a person or of enroll.
func (m *mapping) disturb() {
	switch n := m.random.IntN(30); {
	case n == 0 && len(m.Mapped) < mostMappers && !m.absent:
		m.orphan()
		return
	case n == 1:
		m.rewrite()
		return
	}
	switch n := m.Rng.IntN(12); {
	case n == 0 && len(m.Mapped) < mostMappers:
		m.next()
	case n == 1 && len(m.Enrolls) > 0 && m.written == 0:
		// A process of enroll mistakes another Job for the last Job, but only until a person has
		// changed the template. After that change, a stamp of another run would replace the number
		// of shards that the present run has to keep.
		e, of := engine.Pick(m.Rng, m.Enrolls), engine.Pick(m.Rng, m.Mapped)
		m.Note(e.Name, "believes in Job %s", of.UID)
		e.Believes, e.BelievesIn = of.Shards, of.UID
		e.Nudge()
		m.After(engine.Between(m.Rng, 100*time.Millisecond, 800*time.Millisecond), func() { e.Believes, e.BelievesIn = 0, ""; e.Nudge() })
		m.sure = m.Now() + time.Minute
	default:
		m.trouble.strike()
	}
}

// run plays the story of one seed.
func (m *mapping) run() {
	for range 3 {
		if !disturbFor(m.World, engine.Between(m.Rng, 2*time.Minute, 5*time.Minute), 12*time.Second, m.disturb) {
			return
		}
		m.Do(m.recover)
		if !m.ended("the trouble") {
			return
		}
		m.Do(m.next)
		if !m.Pass(engine.Between(m.Rng, time.Second, 40*time.Second)) {
			return
		}
		m.Do(m.next)
		if !m.ended("a new Job") {
			return
		}
	}
	m.waiters.afterTrouble(true)
}

// recover ends all faults, and stops the pods of earlier Jobs. The method also deletes each pod
// that has the shards of an earlier Job as its condition.
func (m *mapping) recover() {
	for _, e := range m.Enrolls {
		e.Believes, e.BelievesIn = 0, ""
	}
	if m.absent {
		m.next()
	}
	m.written = 0
	m.heal()
	m.waiters.recover()
	for _, p := range slices.Clone(m.waiters.all) {
		if run := p.Conditions[0].Key; run != "" && run != world.LastJob(m.World).UID {
			p.Delete() // the shards of an earlier Job can no longer become done
			m.waiters.remove(p)
		}
	}
	m.killStopped()
	for _, p := range slices.Clone(m.Pods) {
		if of := world.LastJob(m.World); m.stays(p) && (p.Key != of.UID || p.Shards != of.Shards) {
			p.Stop()
		}
	}
	m.nudge()
}

// ended demands that each shard of the last Job becomes done, and that each pod ends. Then the
// method demands that the pods with conditions go on.
func (m *mapping) ended(after string) bool {
	bound := m.ending()
	over := func() bool { return len(world.Undone(m.World, world.LastJob(m.World))) == 0 && len(m.Pods) == 0 }
	if !m.Until(bound, over) {
		m.Do(func() {
			last := world.LastJob(m.World)
			m.Violate(world.Nobody, "%v after %s %v of Job %s are not done, and %d pods are left",
				bound, after, world.Undone(m.World, last), last.UID, len(m.Pods))
		})
		return false
	}
	return m.waiters.afterTrouble(false)
}

// ending bounds the time until each shard is done. The pods may run one after the other.
func (m *mapping) ending() time.Duration {
	one := 2*m.templates[0].Ends + m.settling() + world.MostBackOff
	return m.settling() + 20*time.Second + (mostMapped+1)*one
}
