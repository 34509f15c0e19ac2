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
// "enroll" returns the Reconciler that this process runs. Of several stories, the seed selects one.
func Seeds(t *testing.T, enroll func(*world.Enroller) world.Reconciler, stories ...story.Story) {
	from, to := *first, *seeds
	if *seed != 0 {
		from, to = *seed, *seed
	}
	for n := from; n <= to; n++ {
		t.Run(fmt.Sprintf("seed=%d", n), func(t *testing.T) { play(t, n, enroll, stories[n%uint64(len(stories))]) })
	}
	for range *more {
		n := rand.Uint64N(1_000_000)
		fmt.Printf("%s plays the random seed %d\n", t.Name(), n)
		t.Run(fmt.Sprintf("seed=%d", n), func(t *testing.T) { play(t, n, enroll, stories[n%uint64(len(stories))]) })
	}
}

// play plays a story of one seed in a synctest bubble, and reports the first violation, if any.
func play(t *testing.T, n uint64, enroll func(*world.Enroller) world.Reconciler, played story.Story) {
	var w *world.World
	synctest.Test(t, func(t *testing.T) {
		w = world.New(t.Context(), n, enroll)
		played(w)
	})
	if *seed != 0 && testing.Verbose() {
		t.Log("\n" + w.History())
	}
	if verdict, at := w.Verdict(); verdict != "" {
		t.Errorf("seed %d at %v: %s\nIts whole history: make sim SEED=%d\n%s", n, at, verdict, n, w.Tail(shown))
	}
}
