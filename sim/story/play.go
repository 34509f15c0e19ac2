// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"slices"

	"github.com/metaparticle-io/metaparticle/sim/world"
)

// Play plays the story of the seed until its end or the first violation, and ends the world. Odd
// seeds play the story "chaos", and even seeds the story "table". So the seed alone replays a
// failure.
func Play(w *world.World) {
	defer w.End()
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

// PlayRollouts plays the seed's story in which pods of several revisions compete. In
// every third seed the pods have no controller, and come and go at random.
func PlayRollouts(w *world.World) {
	defer w.End()
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

// PlayJobs plays the seed's story in which the pods of Jobs compete for a lock.
func PlayJobs(w *world.World) {
	defer w.End()
	var story *jobs
	w.Do(func() { story = newJobs(w) })
	story.run()
}

// PlayWorks plays the seed's story in which pods do work that is to run once.
func PlayWorks(w *world.World) {
	defer w.End()
	var story *jobs
	w.Do(func() { story = newWorks(w) })
	story.run()
}

// PlayShards plays the seed's story in which the number of a workload's shards changes.
func PlayShards(w *world.World) {
	defer w.End()
	var story *sharding
	w.Do(func() { story = newSharding(w) })
	story.run()
}

// PlayMaps plays the seed's story in which the pods of Jobs work through shards.
func PlayMaps(w *world.World) {
	defer w.End()
	var story *mapping
	w.Do(func() { story = newMapping(w) })
	story.run()
}

// PlayPrograms plays the seed's story in which programs use the local API.
func PlayPrograms(w *world.World) {
	defer w.End()
	var story *programs
	w.Do(func() { story = newPrograms(w, (*programs).claims) })
	story.run()
}

// PlayLeashed plays the seed's story in which shims kill the programs of lost holds. The
// programs obey no answer of the local API.
func PlayLeashed(w *world.World) {
	defer w.End()
	var story *programs
	w.Do(func() { story = newProgramsIn(w, (*programs).claims, true) })
	story.run()
}

// PlayReaders plays the seed's story in which programs read and write under one lock.
func PlayReaders(w *world.World) {
	defer w.End()
	var story *programs
	w.Do(func() { story = newPrograms(w, readersClaims) })
	story.run()
}

// PlayJoints plays the seed's story in which one call of a program bids for several claims.
func PlayJoints(w *world.World) {
	defer w.End()
	var story *programs
	w.Do(func() { story = newPrograms(w, jointClaims) })
	story.run()
}

// PlayStarts plays the seed's story in which pods have a start lock.
func PlayStarts(w *world.World) {
	defer w.End()
	var story *starting
	w.Do(func() { story = newStarting(w) })
	story.run()
}

// PlayBarriers plays the seed's story in which pods of Jobs start together.
func PlayBarriers(w *world.World) { gather(w, false) }

// PlayMeetings plays the seed's story in which programs of Jobs wait for each other by the
// local API.
func PlayMeetings(w *world.World) { gather(w, true) }

// gather plays the seed's story in which the pods of Jobs wait for each other.
func gather(w *world.World, programs bool) {
	defer w.End()
	var story *gathering
	w.Do(func() { story = newGathering(w, programs) })
	story.run()
}

// PlayRestores plays the seed's story in which a person restores the API server's objects.
func PlayRestores(w *world.World) {
	defer w.End()
	var story restoring
	w.Do(func() {
		w.Restores = true
		story = restoring{newChaos(w)}
	})
	story.run()
}

// PlayStrange plays the seed's story with the faults of proxies and broken servers. No draw of
// the other tests changes, because only this function sets [world.World.Strange]. The seed
// selects the story.
func PlayStrange(w *world.World) {
	w.Strange = true
	disturbed[w.Seed%uint64(len(disturbed))](w)
}

// PlayScarce plays a story in which pods run out of space, processes and buffers. The seed selects
// the story. Like [PlayStrange], PlayScarce changes no draw of other tests.
func PlayScarce(w *world.World) {
	w.Scarce = true
	scarce[w.Seed%uint64(len(scarce))](w)
}

// scarce has the stories that [PlayScarce] plays. Only the story "chaos" has pods of the gate
// "pod", so this story gets five seeds of 17.
var scarce = append(slices.Clone(disturbed), playChaos, playChaos, playChaos, playChaos)

// disturbed has the stories that [PlayStrange] plays. The number of stories has no
// common divisor with 2, 3 and 10, by which some stories divide the seed.
var disturbed = []func(*world.World){
	playChaos, PlayRollouts, PlayJobs, PlayWorks, PlayShards, PlayMaps, PlayPrograms, PlayReaders,
	PlayJoints, PlayLeashed, PlayStarts, PlayBarriers, PlayMeetings,
}

// PlayLagging plays the seed's story of large barriers and slow answers. In odd seeds programs wait by
// the local API.
func PlayLagging(w *world.World) {
	defer w.End()
	var story *lagging
	w.Do(func() { story = newLagging(w, w.Seed%2 == 1) })
	story.run()
}

// PlayCommitting plays the seed's story of a slow etcd.
func PlayCommitting(w *world.World) {
	defer w.End()
	var story committing
	w.Do(func() { story = newCommitting(w) })
	story.run()
}

// PlayRelabelled plays a story in which a clerk labels Leases. The seed selects the story. Like
// [PlayStrange], PlayRelabelled changes no draw of other tests.
func PlayRelabelled(w *world.World) {
	w.Do(newClerk(w).later)
	relabelled[w.Seed%uint64(len(relabelled))](w)
}

// relabelled has the stories that [PlayRelabelled] plays.
var relabelled = append(slices.Clone(disturbed), playAsking, playAsking, playAsking, playAsking)

// playAsking plays the story "asking".
func playAsking(w *world.World) {
	defer w.End()
	var story asking
	w.Do(func() { story = asking{newRolling(w), newClerk(w)} })
	story.run()
}

// PlayStalled plays a story in which the disk of etcd is slow again and again. The seed selects the
// story. Like [PlayStrange], PlayStalled changes no draw of other tests.
func PlayStalled(w *world.World) {
	w.Do(newDisk(w).later)
	disturbed[w.Seed%uint64(len(disturbed))](w)
}

// PlayAmbushed plays a story in which faults come at the instants of stored writes. The seed selects
// the story. Like [PlayStrange], PlayAmbushed changes no draw of other tests.
func PlayAmbushed(w *world.World) {
	w.Do(newAmbush(w).lurk)
	ambushable[w.Seed%uint64(len(ambushable))](w)
}

// ambushable has the stories that [PlayAmbushed] plays.
var ambushable = []func(*world.World){
	playChaos, PlayShards, playChaos, PlayMaps, playChaos, PlayStarts, PlayJobs, playChaos, PlayWorks, playRolling, playChaos,
}

// PlayEdited plays a story in which a person edits Leases by hand. The seed selects the story. Like
// [PlayStrange], PlayEdited changes no draw of other tests.
func PlayEdited(w *world.World) {
	w.Do(newEditor(w).later)
	edited[w.Seed%uint64(len(edited))](w)
}

// edited has the stories that [PlayEdited] plays.
var edited = []func(*world.World){
	playChaos, PlayJobs, playChaos, PlayShards, PlayMaps, PlayPrograms, playChaos, PlayReaders, PlayJoints, PlayLeashed, playRolling,
	PlayWorks, PlayStarts,
}

// PlayForged plays a story in which a person forges boot ids. The seed selects the story. Like
// [PlayStrange], PlayForged changes no draw of other tests.
func PlayForged(w *world.World) {
	w.Do(newForger(w).later)
	forged[w.Seed%uint64(len(forged))](w)
}

// forged has the stories that [PlayForged] plays. Two stories are left out, because a forged boot id
// ends a hold. A failure under such a hold is not counted, and a start lock stays with its holder until
// the next pod starts.
var forged = []func(*world.World){
	playChaos, PlayJobs, playChaos, PlayShards, PlayMaps, PlayPrograms, playChaos, PlayReaders, PlayJoints, PlayLeashed, playRolling,
}

// PlayReplaced plays a story in which machines are replaced by other machines of the same names. The
// seed selects the story. Like [PlayStrange], PlayReplaced changes no draw of other tests.
func PlayReplaced(w *world.World) {
	w.Do(func() { replace(w) })
	replaced[w.Seed%uint64(len(replaced))](w)
}

// replaced has the stories that [PlayReplaced] plays. These stories have no pods in which no agent
// starts the application, because [world.Node.Replace] moves only other pods.
var replaced = []func(*world.World){playChaos, PlayStarts, playChaos, PlayShards, playChaos, playRolling, playChaos}

// playRolling plays the story "rolling".
func playRolling(w *world.World) {
	defer w.End()
	var story *rolling
	w.Do(func() { story = newRolling(w) })
	story.run()
}

// playChaos plays the story "chaos".
func playChaos(w *world.World) {
	defer w.End()
	var story *chaos
	w.Do(func() { story = newChaos(w) })
	story.run()
}
