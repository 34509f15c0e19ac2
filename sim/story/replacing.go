// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"math/rand/v2"
	"time"

	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// replacing replaces machines by other machines of the same names, at random times and beside the
// faults of a story. Its random source is separate, so the draws of the story stay the same.
type replacing struct {
	*world.World
	rng *rand.Rand
}

// mostReplaced bounds the pods that run on old machines at the same time.
const mostReplaced = 6

// replace makes a seed's world with machines that are replaced. In half of these worlds each pod may
// run in a virtual machine of its own. Only such a pod may have the same volume on the other machine,
// because docs/guarantees.md excludes two machines with the same disk.
func replace(w *world.World) {
	r := &replacing{w, w.Source("replaced")}
	w.OwnKernel = engine.Chance(r.rng, .5)
	r.later()
}

// later plans the next replacement, and calls itself after that replacement.
func (r *replacing) later() {
	r.After(engine.Between(r.rng, 0, 30*time.Second), func() {
		if !r.Calm && r.left() < mostReplaced {
			r.act()
		}
		r.later()
	})
}

// act replaces a machine. The other machine starts its pods soon, or after a while.
func (r *replacing) act() {
	n, kept := engine.Pick(r.rng, r.Nodes), r.OwnKernel && engine.Chance(r.rng, .5)
	pause := engine.Between(r.rng, 500*time.Millisecond, 3*time.Second)
	if engine.Chance(r.rng, .3) {
		pause *= 10
	}
	if world.Sound(n) {
		world.Replace(n, kept, pause)
	}
}

// left returns the number of pods that have processes, and no object.
func (r *replacing) left() (n int) {
	for _, p := range r.Pods {
		if !p.Object {
			n++
		}
	}
	return n
}
