// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"time"

	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// New returns the world of a seed. The caller must be in a synctest bubble. For each [Enroller] the
// function "enroll" returns the Reconciler that the Enroller runs.
func New(ctx context.Context, seed uint64, enroll func(*Enroller) Reconciler) *World {
	w := &World{Engine: engine.New(ctx, seed), reconciler: enroll, remembered: remembered{}, read: map[string]bool{}}
	w.api = apiserver.New(w.Engine, w.stored)
	w.checks = newChecks(w.Engine)
	w.calm = true
	return w
}

// stored judges a stored write of a Lease. An update of a Lease that matters to enroll wakes enroll.
func (w *World) stored(by, lease string, sent time.Duration, before, after apiserver.Version) {
	w.checks.leaseStored(by, lease, sent, before, after)
	checkOpened(w, by, lease, sent, before.Lease, after.Lease)
	if before.Body != nil && restamped(before.Lease, after.Lease) {
		w.api.Inform()
	}
}

// Play plays the story of the seed until its end or the first violation, and ends the world. Odd
// seeds play the story "chaos", and even seeds the story "table". So the seed alone replays a
// failure.
func (w *World) Play() {
	defer w.end()
	var story interface{ run() }
	w.Do(func() {
		if w.Seed%2 == 0 {
			story = newTable(w)
		} else {
			story = newChaos(w)
		}
	})
	story.run()
}

// PlayRollouts plays the story of the seed in which pods of several revisions compete. In
// every third seed the pods have no controller, and come and go at random.
func (w *World) PlayRollouts() {
	defer w.end()
	var story interface{ run() }
	w.Do(func() {
		if w.Seed%3 == 0 {
			story = newRolling(w)
		} else {
			story = persons{newChanging(w)}
		}
	})
	story.run()
}

// PlayJobs plays the story of the seed in which the pods of Jobs compete for a lock.
func (w *World) PlayJobs() {
	defer w.end()
	var story *jobs
	w.Do(func() { story = newJobs(w) })
	story.run()
}

// PlayWorks plays the story of the seed in which pods do work that is to run once.
func (w *World) PlayWorks() {
	defer w.end()
	var story *jobs
	w.Do(func() { story = newWorks(w) })
	story.run()
}

// PlayShards plays the story of the seed in which the number of a workload's shards changes.
func (w *World) PlayShards() {
	defer w.end()
	var story *sharding
	w.Do(func() { story = newSharding(w) })
	story.run()
}

// PlayMaps plays the story of the seed in which the pods of Jobs do each shard once.
func (w *World) PlayMaps() {
	defer w.end()
	var story *mapping
	w.Do(func() { story = newMapping(w) })
	story.run()
}

// PlayPrograms plays the story of the seed in which programs use the local API.
func (w *World) PlayPrograms() {
	defer w.end()
	var story *programs
	w.Do(func() { story = newPrograms(w, (*programs).claims) })
	story.run()
}

// PlayLeashed plays the story of the seed in which shims kill the programs of lost holds. The
// programs obey no answer of the local API.
func PlayLeashed(w *World) {
	defer w.end()
	var story *programs
	w.Do(func() { story = newProgramsIn(w, (*programs).claims, true) })
	story.run()
}

// PlayReaders plays the story of the seed in which programs read and write under one lock.
func (w *World) PlayReaders() {
	defer w.end()
	var story *programs
	w.Do(func() { story = newPrograms(w, readersClaims) })
	story.run()
}

// PlayJoints plays the story of the seed in which one call of a program bids for several claims.
func PlayJoints(w *World) {
	defer w.end()
	var story *programs
	w.Do(func() { story = newPrograms(w, jointClaims) })
	story.run()
}

// PlayStarts plays the story of the seed in which pods have a start lock.
func (w *World) PlayStarts() {
	defer w.end()
	var story *starting
	w.Do(func() { story = newStarting(w) })
	story.run()
}

// PlayBarriers plays the story of the seed in which pods of Jobs start together.
func (w *World) PlayBarriers() { gather(w, false) }

// PlayMeetings plays the story of the seed in which programs of Jobs wait for each other by the
// local API.
func PlayMeetings(w *World) { gather(w, true) }

// gather plays the story of the seed in which the pods of Jobs wait for each other.
func gather(w *World, programs bool) {
	defer w.end()
	var story *gathering
	w.Do(func() { story = newGathering(w, programs) })
	story.run()
}

// PlayRestores plays the story of the seed in which a person restores the API server's objects.
func (w *World) PlayRestores() {
	defer w.end()
	var story restoring
	w.Do(func() {
		w.restores = true
		story = restoring{newChaos(w)}
	})
	story.run()
}

// end stops all processes, and waits for their goroutines.
func (w *World) end() {
	w.Do(func() {
		for _, p := range w.pods {
			for _, a := range p.agents {
				a.Die()
			}
			p.order.endWait()
			for _, c := range p.containers {
				for _, s := range c.shims {
					s.die()
				}
			}
		}
		for _, n := range w.nodes {
			for _, t := range n.tenants {
				t.crash()
			}
		}
		for _, e := range w.enrolls {
			e.Die()
		}
		w.Stop()
	})
	w.Group.Wait()
	// Some goroutines of the product outlive the call of Run that started them. Such a goroutine
	// may still wait for the random tick of its last request (package apiserver).
	<-time.After(time.Millisecond)
}
