// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package story

import (
	"math/rand/v2"
	"time"

	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
	"github.com/metaparticle-io/metaparticle/sim/world"
)

// emptyWatches has the case of the story "table" in which a proxy ends each watch at once, without an
// error and without an event. The case has a random source of its own.
type emptyWatches struct {
	*demands
	rng *rand.Rand
}

// leaves stops the holder's pod, and demands that the standbys learn of the release by their reads.
func (e emptyWatches) leaves() {
	e.Do(func() {
		e.API.Weather = apiserver.Weather{Watches: apiserver.Empty}
		e.Note("script", "weather %v", e.API.Weather)
		e.API.Watches.Cut()
	})
	e.Pass(engine.Between(e.rng, 0, e.budget.Duration))
	read := world.Slow(min(world.Slowest, e.longest/6)) + world.Quick
	e.handoverWithin(time.Duration(len(e.slots))*2*read, stopPod)
	e.Do(func() { e.API.Weather = apiserver.Fair })
}
