// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"flag"
	"fmt"
	"testing"
	"testing/synctest"
)

var (
	seeds = flag.Int("seeds", 20, "how many seeds to simulate")
	seed  = flag.Uint64("seed", 0, "the one seed to replay; with -v, its history is printed")
)

// shown is how much of the history of a failed seed is printed.
const shown = 60

func TestSimulation(t *testing.T) {
	from, to := uint64(1), uint64(*seeds)
	if *seed != 0 {
		from, to = *seed, *seed
	}
	for n := from; n <= to; n++ {
		t.Run(fmt.Sprintf("seed=%d", n), func(t *testing.T) { play(t, n, story(n)) })
	}
}

// play runs one story in a bubble and reports what it found.
func play(t *testing.T, n uint64, story func(*world)) *world {
	var w *world
	synctest.Test(t, func(t *testing.T) {
		w = newWorld(t.Context(), n)
		story(w)
		w.end()
	})
	if *seed != 0 && testing.Verbose() {
		t.Log("\n" + w.tail(len(w.history)))
	}
	if w.verdict != "" {
		t.Errorf("seed %d at %v: %s\nIts whole history: make sim SEED=%d\n%s", n, w.failedAt, w.verdict, n, w.tail(shown))
	}
	return w
}

// story: odd seeds play chaos, even ones the table, so that one number says
// everything about a failure.
func story(n uint64) func(*world) {
	if n%2 == 0 {
		return func(w *world) {
			var t *table
			w.do(func() { t = w.newTable() })
			t.run()
		}
	}
	return func(w *world) {
		var c *chaos
		w.do(func() { c = w.newChaos() })
		c.run()
	}
}
