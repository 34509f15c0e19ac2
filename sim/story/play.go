// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"slices"

	"github.com/metaparticle-io/metaparticle/sim/world"
)

// Story is played in a fresh world until its end or the first violation, and ends the world. The
// seed of the world selects the draws, so the seed alone replays a failure.
type Story func(*world.World)

// plays returns the story of the script that the function "create" makes.
func plays[S interface{ run() }](create func(*world.World) S) Story {
	return func(w *world.World) {
		defer w.End()
		var script S
		w.Do(func() { script = create(w) })
		script.run()
	}
}

// oneOf returns the story that the seed selects from the given ones.
func oneOf(stories ...Story) Story {
	return func(w *world.World) { stories[w.Seed%uint64(len(stories))](w) }
}

// with returns the story that is played after the preparation of the world. The preparation draws
// from its own random sources, so it changes no draw of the stories.
func with(prepare func(*world.World), played Story) Story {
	return func(w *world.World) {
		prepare(w)
		played(w)
	}
}

// These are all stories. A story that is played by tests of its own is exported.
var (
	// Simulation plays the story "chaos" with odd seeds, and the story "table" with even seeds.
	Simulation = oneOf(plays(newTable), chaotic)
	chaotic    = plays(newChaos)
	// Rollouts has pods of several revisions that compete. In every third seed the pods have no
	// controller, and come and go at random.
	Rollouts     = oneOf(rollingStory, personal, personal)
	rollingStory = plays(newRolling)
	personal     = plays(func(w *world.World) persons { return persons{newChanging(w)} })
	// Hangs has applications that hang.
	Hangs = plays(newHanging)
	// Outages has an application that survives outages of the API server.
	Outages = plays(newRiding)
	// Supported has the same with supporters.
	Supported = plays(newSupported)
	// Preferences has pods that their templates prefer. Candidates has pods that die, freeze, are
	// deleted or lose their images while they speak to the holder.
	Preferences = plays(newPreferring)
	Candidates  = plays(newCourting)
	// Jobs has pods of Jobs that compete for a lock.
	Jobs = plays(newJobs)
	// Works has pods that do work that is to run once.
	Works = plays(newWorks)
	// Shards changes the number of a workload's shards.
	Shards = plays(newSharding)
	// Maps has pods of Jobs that work through shards.
	Maps = plays(newMapping)
	// Programs has programs that use the local API.
	Programs = plays(func(w *world.World) *programs { return newPrograms(w, (*programs).claims) })
	// Leashed has shims that kill the programs of lost holds. The programs obey no answer of the local
	// API.
	Leashed = plays(func(w *world.World) *programs { return newProgramsIn(w, (*programs).claims, true) })
	// Readers has programs that read and write under one lock.
	Readers = plays(func(w *world.World) *programs { return newPrograms(w, readersClaims) })
	// Joints has programs of which one call bids for several claims.
	Joints = plays(func(w *world.World) *programs { return newPrograms(w, jointClaims) })
	// Starts has pods with a start lock.
	Starts = plays(newStarting)
	// Barriers has pods of Jobs that start together.
	Barriers = plays(func(w *world.World) *gathering { return newGathering(w, false) })
	// Meetings has programs of Jobs that wait for each other by the local API.
	Meetings = plays(func(w *world.World) *gathering { return newGathering(w, true) })
	// Restores has a person who restores the API server's objects.
	Restores = plays(func(w *world.World) restoring {
		w.Restores = true
		return restoring{newChaos(w)}
	})
	// Lagging has large barriers and slow answers. In odd seeds programs wait by the local API.
	Lagging = plays(func(w *world.World) *lagging { return newLagging(w, w.Seed%2 == 1) })
	// Committing has a slow etcd.
	Committing  = plays(newCommitting)
	askingStory = plays(func(w *world.World) asking { return asking{newRolling(w), newClerk(w)} })
)

// The number of these stories has no common divisor with 2, 3 and 10, by which some stories divide the
// seed.
var disturbed = []Story{
	chaotic, Rollouts, Jobs, Works, Shards, Maps, Programs, Readers, Joints, Leashed, Starts, Barriers, Meetings,
}

// In each of these stories something disturbs one of the stories above.
var (
	// Strange has the faults of proxies and broken servers.
	Strange = with(func(w *world.World) { w.Strange = true }, oneOf(disturbed...))
	// Scarce has pods that run out of space, processes and buffers. Only the story "chaos" has pods of the
	// gate "pod", so this story gets five seeds of 17.
	Scarce = with(func(w *world.World) { w.Scarce = true },
		oneOf(append(slices.Clone(disturbed), chaotic, chaotic, chaotic, chaotic)...))
	// Relabelled has a clerk that labels Leases.
	Relabelled = with(func(w *world.World) { w.Do(newClerk(w).later) },
		oneOf(append(slices.Clone(disturbed), askingStory, askingStory, askingStory, askingStory)...))
	// Stalled has a disk of etcd that is slow again and again.
	Stalled = with(func(w *world.World) { w.Do(newDisk(w).later) }, oneOf(disturbed...))
	// Ambushed has faults at the instants of stored writes.
	Ambushed = with(func(w *world.World) { w.Do(newAmbush(w).lurk) }, oneOf(
		chaotic, Shards, chaotic, Maps, chaotic, Starts, Jobs, chaotic, Works, rollingStory, chaotic,
	))
	// Edited has a person who edits Leases by hand.
	Edited = with(func(w *world.World) { w.Do(newEditor(w).later) }, oneOf(
		chaotic, Jobs, chaotic, Shards, Maps, Programs, chaotic, Readers, Joints, Leashed, rollingStory, Works, Starts,
	))
	// Forged has a person who forges boot ids. Two stories are left out, because a forged boot id ends a
	// hold. A failure under such a hold is not counted, and a start lock stays with its holder until the
	// next pod starts.
	Forged = with(func(w *world.World) { w.Do(newForger(w).later) }, oneOf(
		chaotic, Jobs, chaotic, Shards, Maps, Programs, chaotic, Readers, Joints, Leashed, rollingStory,
	))
	// Replaced has machines that are replaced by other machines of the same names. None of its stories has
	// pods in which no agent starts the application, because [world.Node.Replace] moves only other pods.
	Replaced = with(func(w *world.World) { w.Do(func() { replace(w) }) },
		oneOf(chaotic, Starts, chaotic, Shards, chaotic, rollingStory, chaotic))
)
