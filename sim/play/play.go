// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package play has the tests that the packages of the simulation share: the seeds, and the planted
// bugs. Only the test binaries that the package compiles contain planted bugs. The product contains
// none.
package play

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"testing"
	"testing/synctest"

	"github.com/metaparticle-io/metaparticle/sim/story"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

var (
	seeds = flag.Uint64("seeds", 20, "the last seed to simulate")
	first = flag.Uint64("first", 1, "the first seed to simulate")
	seed  = flag.Uint64("seed", 0, "the one seed to replay; with -v, its history is printed")
	more  = flag.Int("random", 0, "how many random seeds to simulate after these")
)

// shown is the number of lines of history that a failed seed prints.
const shown = 60

// SaveProcessorTime makes this process run on one processor at a time, and collect garbage seldom. The
// goroutines of a synctest bubble wait for each other, so a second processor would mostly wake up and
// find no work. The packages of the simulation, and the planted bugs, run as parallel processes
// instead. On two processors, 30 seeds of packages sim and enrolled took 24 s with the limit of one
// processor, and 39 s without. The collection of garbage took a fifth of the time. With this setting the
// process takes 100 MB, and 46 MB without.
func SaveProcessorTime() {
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(400)
}

// Seeds plays the seeds that the flags ask for. For each simulated process of enroll, the argument
// "enroll" returns the Reconciler that this process runs.
func Seeds(t *testing.T, enroll func(*world.Enroller) world.Reconciler) {
	each(t, enroll, story.Play)
}

func each(t *testing.T, enroll func(*world.Enroller) world.Reconciler, story func(*world.World)) {
	from, to := *first, *seeds
	if *seed != 0 {
		from, to = *seed, *seed
	}
	for n := from; n <= to; n++ {
		t.Run(fmt.Sprintf("seed=%d", n), func(t *testing.T) { play(t, n, enroll, story) })
	}
	for range *more {
		n := rand.Uint64N(1_000_000)
		fmt.Printf("%s plays the random seed %d\n", t.Name(), n)
		t.Run(fmt.Sprintf("seed=%d", n), func(t *testing.T) { play(t, n, enroll, story) })
	}
}

// Rollouts plays, for each seed, the story in which several revisions compete. Like [Seeds],
// Rollouts plays the seeds that the flags ask for.
func Rollouts(t *testing.T, enroll func(*world.Enroller) world.Reconciler) {
	each(t, enroll, story.PlayRollouts)
}

// Jobs plays, for each seed, the story of pods that end. Like [Seeds], Jobs plays the seeds
// that the flags ask for.
func Jobs(t *testing.T, enroll func(*world.Enroller) world.Reconciler) {
	each(t, enroll, story.PlayJobs)
}

// Works plays, for each seed, the story of once claims. Like [Seeds], Works plays the seeds that
// the flags ask for.
func Works(t *testing.T, enroll func(*world.Enroller) world.Reconciler) {
	each(t, enroll, story.PlayWorks)
}

// Shards plays, for each seed, the story in which the number of a workload's shards changes.
// Like [Seeds], Shards plays the seeds that the flags ask for.
func Shards(t *testing.T, enroll func(*world.Enroller) world.Reconciler) {
	each(t, enroll, story.PlayShards)
}

// Maps plays, for each seed, the story of Jobs with shards.
func Maps(t *testing.T, enroll func(*world.Enroller) world.Reconciler) {
	each(t, enroll, story.PlayMaps)
}

// Programs plays, for each seed, the story of programs that use the local API. Like [Seeds],
// Programs plays the seeds that the flags ask for.
func Programs(t *testing.T, enroll func(*world.Enroller) world.Reconciler) {
	each(t, enroll, story.PlayPrograms)
}

// Readers plays, for each seed, the story of programs that read and write under one lock.
func Readers(t *testing.T, enroll func(*world.Enroller) world.Reconciler) {
	each(t, enroll, story.PlayReaders)
}

// Joints plays, for each seed, the story of programs that bid for several claims in one call.
func Joints(t *testing.T, enroll func(*world.Enroller) world.Reconciler) {
	each(t, enroll, story.PlayJoints)
}

// Leashed plays, for each seed, the story in which shims kill the programs whose holds are lost.
func Leashed(t *testing.T, enroll func(*world.Enroller) world.Reconciler) {
	each(t, enroll, story.PlayLeashed)
}

// Starts plays, for each seed, the story of pods with a start lock.
func Starts(t *testing.T, enroll func(*world.Enroller) world.Reconciler) {
	each(t, enroll, story.PlayStarts)
}

// Meetings plays, for each seed, the story of Jobs whose programs wait for each other.
func Meetings(t *testing.T, enroll func(*world.Enroller) world.Reconciler) {
	each(t, enroll, story.PlayMeetings)
}

// Barriers plays, for each seed, the story of Jobs whose pods start together.
func Barriers(t *testing.T, enroll func(*world.Enroller) world.Reconciler) {
	each(t, enroll, story.PlayBarriers)
}

// Restores plays, for each seed, the story in which a person restores the API server's objects.
func Restores(t *testing.T, enroll func(*world.Enroller) world.Reconciler) {
	each(t, enroll, story.PlayRestores)
}

// Strange plays, for each seed, a story with the faults of proxies and broken servers.
func Strange(t *testing.T, enroll func(*world.Enroller) world.Reconciler) {
	each(t, enroll, story.PlayStrange)
}

// Scarce plays, for each seed, a story in which pods run out of space, processes and buffers.
func Scarce(t *testing.T, enroll func(*world.Enroller) world.Reconciler) {
	each(t, enroll, story.PlayScarce)
}

// Lagging plays, for each seed, the story of large barriers and slow answers.
func Lagging(t *testing.T, enroll func(*world.Enroller) world.Reconciler) {
	each(t, enroll, story.PlayLagging)
}

// Committing plays, for each seed, the story of a slow etcd.
func Committing(t *testing.T, enroll func(*world.Enroller) world.Reconciler) {
	each(t, enroll, story.PlayCommitting)
}

// Relabelled plays, for each seed, a story in which a clerk labels Leases.
func Relabelled(t *testing.T, enroll func(*world.Enroller) world.Reconciler) {
	each(t, enroll, story.PlayRelabelled)
}

// Stalled plays, for each seed, a story in which the disk of etcd is slow again and again.
func Stalled(t *testing.T, enroll func(*world.Enroller) world.Reconciler) {
	each(t, enroll, story.PlayStalled)
}

// Ambushed plays, for each seed, a story in which faults come at the instants of stored writes.
func Ambushed(t *testing.T, enroll func(*world.Enroller) world.Reconciler) {
	each(t, enroll, story.PlayAmbushed)
}

// Edited plays, for each seed, a story in which a person edits Leases by hand.
func Edited(t *testing.T, enroll func(*world.Enroller) world.Reconciler) {
	each(t, enroll, story.PlayEdited)
}

// Forged plays, for each seed, a story in which a person forges boot ids.
func Forged(t *testing.T, enroll func(*world.Enroller) world.Reconciler) {
	each(t, enroll, story.PlayForged)
}

// Replaced plays, for each seed, a story in which machines are replaced.
func Replaced(t *testing.T, enroll func(*world.Enroller) world.Reconciler) {
	each(t, enroll, story.PlayReplaced)
}

// OneOf plays one of the stories for each seed. The seed selects the story, so each story gets an
// equal part of the seeds, and a seed always replays the same story.
func OneOf(t *testing.T, enroll func(*world.Enroller) world.Reconciler, stories ...func(*world.World)) {
	each(t, enroll, func(w *world.World) { stories[w.Seed%uint64(len(stories))](w) })
}

// play plays a story of one seed in a synctest bubble, and reports the first violation, if any.
func play(t *testing.T, n uint64, enroll func(*world.Enroller) world.Reconciler, story func(*world.World)) {
	var w *world.World
	synctest.Test(t, func(t *testing.T) {
		w = world.New(t.Context(), n, enroll)
		story(w)
	})
	if *seed != 0 && testing.Verbose() {
		t.Log("\n" + w.History())
	}
	if verdict, at := w.Verdict(); verdict != "" {
		t.Errorf("seed %d at %v: %s\nIts whole history: make sim SEED=%d\n%s", n, at, verdict, n, w.Tail(shown))
	}
}
