// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// forger replaces the boot ids in held Leases by ids that no machine has, beside the faults of a story.
// A person with the right to patch Leases can do so where the policy "hold" is absent. The random
// source of the forger is separate, so the draws of the story stay the same.
type forger struct {
	*world.World
	rng *rand.Rand
}

func newForger(w *world.World) *forger { return &forger{w, w.Source("forger")} }

// later plans the forger's next write, and calls itself after that write.
func (f *forger) later() {
	f.After(engine.Between(f.rng, 0, 2*rhythm(f.World)), func() {
		held := slices.DeleteFunc(f.API.Names("Lease"), func(name string) bool {
			l, ok := f.API.Lease(name)
			return !ok || l.Holder == "" || l.Annotations[api.BootAnnotation] == ""
		})
		if !f.Calm && len(held) > 0 {
			f.forge(engine.Pick(f.rng, held))
		}
		f.later()
	})
}

// forge replaces the boot id in a Lease.
func (f *forger) forge(name string) {
	rewrite(f.World, "a forger", name, func(l *kube.Lease) {
		l.Annotations[api.BootAnnotation] = fmt.Sprintf("forged-%d", f.rng.IntN(3))
		f.Note("a forger", "replaces the boot id of %s", name)
	})
}
