// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"fmt"
	"math/rand/v2"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// newWorks returns the story of [jobs] with a once claim instead of a lock. The pods of one key
// come one after the other, and earlier keys come again. In some worlds an init container does the
// work.
func newWorks(w *world.World) *jobs {
	j, t := newEnding(w, "work", api.OnceLease("a"))
	t.Containers = []string{"app"}
	if engine.Chance(w.Rng, .4) {
		t.Inits, t.Containers = []string{"migrate"}, nil
	}
	j.assign = func(p *world.Pod) { p.Key = j.nextKey() }
	j.begin(t)
	j.waiters = newWaiters(w, j.conditions)
	j.last = func() { j.waiters.afterTrouble(true) }
	return j
}

// conditions draws one or two conditions for a pod that waits. A condition may name the key of a
// later pod, or a key that no pod ever claims. A condition without a key demands a holder that
// serves. In a world in which init containers do the work, no holder serves. So there the
// condition without a key is never met.
func (j *jobs) conditions(r *rand.Rand) []api.Condition {
	all := make([]api.Condition, 1+r.IntN(2))
	for i := range all {
		all[i].Lease = j.slots[0]
		if engine.Chance(r, .8) {
			all[i].Key = fmt.Sprintf("v%d", 1+r.IntN(j.made/3+3))
		}
	}
	return all
}

// nextKey returns the key of the next pod.
func (j *jobs) nextKey() string {
	j.made++
	n := (j.made + 2) / 3
	if engine.Chance(j.Rng, .3) {
		n = 1 + j.Rng.IntN(n)
	}
	return fmt.Sprintf("v%d", n)
}
