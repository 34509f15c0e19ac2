// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"math/rand/v2"
	"time"

	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// disk is the disk of etcd, which is slow for a while again and again, beside the faults of a story.
// Meanwhile the API server stores each write late, or answers it late. Many of these writes take longer
// than their agents wait. The random source of the disk is separate, so the draws of the story stay the
// same.
type disk struct {
	*world.World
	rng *rand.Rand
}

func newDisk(w *world.World) *disk { return &disk{w, w.Source("disk")} }

// later plans the next time in which the disk is slow, and calls itself after that time.
func (d *disk) later() {
	d.After(engine.Between(d.rng, 0, rhythm(d.World)), func() {
		given := rhythm(d.World) / 4 // an agent with the longest lease then gives up
		slow := engine.Between(d.rng, given/2, 2*given)
		lasts := engine.Between(d.rng, time.Second, 2*rhythm(d.World))
		if !d.Calm {
			if engine.Chance(d.rng, .7) {
				d.API.Store = slow
			} else {
				d.API.Commit = slow
			}
			d.Note("a disk", "is slow for %v: %v later stored, %v later answered", lasts, d.API.Store, d.API.Commit)
		}
		d.After(lasts, func() {
			d.API.Store, d.API.Commit = 0, 0
			d.later()
		})
	})
}
