// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/engine"
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
	// sure is the instant from which on no write of a confused process of enroll is under way.
	sure time.Duration
}

// mapGroup is the group to which the Leases of all Jobs of the story belong.
var mapGroup = api.ShardGroup(mapWorkload)

// mostMapped bounds the shards of a Job. The constant mostMappers bounds the Jobs of the story.
const (
	mostMapped  = 4
	mostMappers = 10
)

func newMapping(w *World) *mapping {
	j, t := newEnding(w, "map", "")
	t.containers, t.any = []string{"app"}, false
	if engine.Chance(w.Rng, .3) {
		t.restless = t.ends
	}
	t.slots = slotsOfJob(mostMapped)
	j.begin(t)
	if engine.Chance(w.Rng, .5) {
		w.newEnroller("enroll-2")
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
		c.Key = lastJob(m.World).uid
	case n == 6:
		c.Key = engine.Pick(r, m.mapped).uid
	}
	return []api.Condition{c}
}

// next deletes the Job, and makes the Job anew with another uid. The pods of the deleted Job end a
// little later, and some of them go on although their objects are gone.
func (m *mapping) next() {
	of := shardedJob{uid: fmt.Sprintf("%d-a", len(m.mapped)+1), shards: 1 + m.random.IntN(mostMapped), indexed: engine.Chance(m.random, .4)}
	of.atOnce = 1 + m.random.IntN(of.shards+1)
	m.written, m.absent = 0, false
	m.mapped, m.sharded = append(m.mapped, of), of.shards
	m.Note("script", "Job %s begins, with %d shards (indexed %v)", of.uid, of.shards, of.indexed)
	for _, p := range slices.Clone(m.pods) {
		if p.object && !p.stopping && !p.orphaned {
			if engine.Chance(m.random, .3) {
				p.forget()
			}
			m.After(engine.Between(m.random, time.Millisecond, 20*time.Second), p.stop)
		}
	}
	m.nudge()
}

// nudge reports a change to enroll.
func (m *mapping) nudge() {
	for _, e := range m.enrolls {
		e.nudge()
	}
}

// plan calls control after each random pause, if the API server can be reached.
func (m *mapping) plan() {
	m.After(engine.Between(m.random, 10*time.Millisecond, 3*time.Second), func() {
		if !m.api.Away {
			m.control()
		}
		m.plan()
	})
}

// control makes a pod of the last Job if a shard of that Job is not done. The Job never has more
// pods than its parallelism allows. A deleted Job gets no new pod. A real Job also ends after a
// given number of successful pods. In the world no Job ever reaches that number.
func (m *mapping) control() {
	of := lastJob(m.World)
	undone := undone(m.World, of)
	mine := slices.DeleteFunc(slices.Clone(m.pods), func(p *pod) bool { return !m.stays(p) || p.key != of.uid })
	if of.indexed {
		undone = slices.DeleteFunc(undone, func(slot string) bool {
			return slices.ContainsFunc(mine, func(p *pod) bool { return p.slots[0] == slot })
		})
	}
	if len(undone) == 0 || len(mine) >= of.atOnce {
		return
	}
	if m.absent {
		return
	}
	t, shards := m.templates[0], cmp.Or(m.written, of.shards)
	t.run, t.shards, t.claims = of.uid, shards, slotsOfJob(shards)
	t.slots, t.any = t.claims, shards > 1
	if of.indexed {
		t.slots, t.any = []string{engine.Pick(m.random, undone)}, false
	}
	m.newPod(t, m.place())
	m.nudge()
}

// stays reports whether the API server has the pod, and the pod is not being stopped.
func (m *mapping) stays(p *pod) bool { return p.object && !p.stopping }

// orphan deletes the last Job, but not its pods, which continue to work on their shards. A while
// later a person makes the Job anew.
func (m *mapping) orphan() {
	m.Note("script", "Job %s is deleted without its pods", lastJob(m.World).uid)
	m.absent = true
	for _, p := range m.pods {
		if p.object && p.run != "" {
			p.orphaned = true
			p.register()
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
	of := lastJob(m.World)
	first := m.api.Object("Lease", slotsOfJob(1)[0]).Last().Lease
	if m.absent || of.indexed || first == nil || stampOf(first).Run != of.uid || m.Now() < m.sure {
		return // also if no Lease has a stamp of this Job yet, or a confused process may replace the stamp
	}
	m.written = 1 + m.random.IntN(mostMapped)
	m.Note("script", "the template of Job %s has %d shards", of.uid, m.written)
	for _, p := range slices.Clone(m.pods) {
		if m.stays(p) && p.run == of.uid {
			p.stop()
		}
	}
}

// disturb causes a fault, a new Job, or a mistake of a person or of enroll.
func (m *mapping) disturb() {
	switch n := m.random.IntN(30); {
	case n == 0 && len(m.mapped) < mostMappers && !m.absent:
		m.orphan()
		return
	case n == 1:
		m.rewrite()
		return
	}
	switch n := m.Rng.IntN(12); {
	case n == 0 && len(m.mapped) < mostMappers:
		m.next()
	case n == 1 && len(m.enrolls) > 0 && m.written == 0:
		// A process of enroll mistakes another Job for the last one, but only until a person has
		// changed the template. After that change, a stamp of another run would replace the
		// number of shards that the present run has to keep.
		e, of := engine.Pick(m.Rng, m.enrolls), engine.Pick(m.Rng, m.mapped)
		m.Note(e.name, "believes in Job %s", of.uid)
		e.believes, e.believesIn = of.shards, of.uid
		e.nudge()
		m.After(engine.Between(m.Rng, 100*time.Millisecond, 800*time.Millisecond), func() { e.believes, e.believesIn = 0, ""; e.nudge() })
		m.sure = m.Now() + time.Minute
	default:
		m.trouble.one()
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

// recover ends all faults, and stops the pods of earlier Jobs. A pod that waits for the shards of
// an earlier Job is deleted.
func (m *mapping) recover() {
	for _, e := range m.enrolls {
		e.believes, e.believesIn = 0, ""
	}
	if m.absent {
		m.next()
	}
	m.written = 0
	m.heal()
	m.waiters.recover()
	for _, p := range slices.Clone(m.waiters.all) {
		if run := p.conditions[0].Key; run != "" && run != lastJob(m.World).uid {
			p.delete() // the shards of an earlier Job never become done any more
			m.waiters.remove(p)
		}
	}
	m.killStopped()
	for _, p := range slices.Clone(m.pods) {
		if of := lastJob(m.World); m.stays(p) && (p.key != of.uid || p.shards != of.shards) {
			p.stop()
		}
	}
	m.nudge()
}

// ended demands that each shard of the last Job becomes done, and that each pod ends. Then the
// method demands that the pods with conditions go on.
func (m *mapping) ended(after string) bool {
	bound := m.ending()
	over := func() bool { return len(undone(m.World, lastJob(m.World))) == 0 && len(m.pods) == 0 }
	if !m.Until(bound, over) {
		m.Do(func() {
			m.Violate(nobody, "%v after %s %v of Job %s are not done, and %d pods are left", bound, after, undone(m.World, lastJob(m.World)), lastJob(m.World).uid, len(m.pods))
		})
		return false
	}
	return m.waiters.afterTrouble(false)
}

// ending bounds the time until each shard is done. The pods may run one after the other.
func (m *mapping) ending() time.Duration {
	one := 2*m.templates[0].ends + m.settling() + mostBackOff
	return m.settling() + 20*time.Second + (mostMapped+1)*one
}
