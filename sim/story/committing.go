// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"math/rand/v2"
	"time"

	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// committing is the story of a slow etcd. The API server stores each write of a Lease, but each answer to
// a stored write comes after the agent has given up. Reads and refusals stay fast. The holder's node
// crashes, and another pod must acquire the slot, and keep the slot.
type committing struct {
	*table
	rng *rand.Rand
}

// newCommitting makes the story. Its random source is separate, so the draws of the story "table" stay
// the same.
func newCommitting(w *world.World) committing { return committing{newTable(w), w.Source("commit")} }

// run plays the story of one seed.
func (c committing) run() {
	for range 3 {
		if !c.ready() {
			return
		}
		given := c.budget.RequestTimeout
		c.Do(func() {
			c.API.Commit = engine.Between(c.rng, given+world.Quick, 2*given)
			c.Note("script", "each stored write is answered after %v", c.API.Commit)
		})
		// For each slot the write and the read after it time out, or a second write does.
		more := time.Duration(len(c.slots)) * (world.Slow(3*given+2*c.budget.Retry) + c.budget.Renew)
		c.expiryWithin(more, func(of *world.Child) { of.Pod().Node.Crash() })
		if c.Blame("slow writes") {
			return
		}
		// An init container of the new holder ends by itself.
		if !c.Until(2*time.Minute, c.runsApplication) {
			c.fail(world.Nobody, "no application runs %v after the slot has expired", 2*time.Minute)
			return
		}
		c.undisturbed(func(*world.Child) {})
		c.Do(func() {
			c.API.Commit = 0
			c.heal()
		})
	}
}

// runsApplication reports whether the holder's child is in a container that does not end by itself.
func (c committing) runsApplication() bool {
	holder := c.Checks.Holder(c.slot)
	return holder != nil && !holder.Container.Init
}

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
