// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"fmt"
	"time"

	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// lagging is the story of a large barrier at a busy or remote API server. Each answer of the server
// comes late, also in quiet times. After the faults the pods that are missing come, and the barrier
// must open.
type lagging struct{ *gathering }

// lag is a size of a barrier, with a delay of answers at which the barrier must open. The delays are
// those of TestBarrierOpensDespiteSlowAnswers in package agent/wait.
type lag struct {
	size   int
	answer time.Duration
}

// lags has the lags of the story.
var lags = []lag{
	{32, 60 * time.Millisecond}, {32, 120 * time.Millisecond}, {32, 170 * time.Millisecond}, {16, 350 * time.Millisecond},
}

// newLagging makes the story. Its only run is larger than the runs of other stories, and the shortest
// lease leaves the least time for slow answers.
func newLagging(w *world.World, programs bool) *lagging {
	rng := w.Source("lag")
	l := &lagging{newGathering(w, programs)}
	of := engine.Pick(rng, lags)
	run := l.Gathered[0]
	run.Duration = durations[0]
	run.Barrier.Size = of.size
	run.Leases, run.Want = run.Barrier.Leases(run.Name), of.size+rng.IntN(2)
	w.API.Lag = of.answer
	w.Note("script", "each answer comes %v late", of.answer)
	return l
}

// run plays the story of one seed.
func (l *lagging) run() {
	if !disturbFor(l.World, engine.Between(l.Rng, 30*time.Second, 2*time.Minute), 20*time.Second, l.trouble.strike) {
		return
	}
	l.Do(func() {
		l.recover()
		l.fill()
	})
	l.proceed()
}

// fill makes the pods that the runs lack, all at once.
func (l *lagging) fill() {
	for _, of := range l.Gathered {
		for len(of.Pods) < of.Want {
			l.made++
			world.NewComer(l.World, of, fmt.Sprintf("%s-pod-%d", of.Name, l.made), engine.Pick(l.random, l.Nodes))
		}
	}
	l.nudge()
}
