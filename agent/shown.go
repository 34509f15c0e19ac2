// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"math/rand/v2"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/show"
	"github.com/metaparticle-io/metaparticle/api"
)

// showConfig returns for which pod, and through what, package show writes.
func showConfig(c Config, b api.Budget, random *rand.Rand) show.Config {
	return show.Config{
		PodName: c.PodName, PodUID: c.PodUID, API: c.API, Timeout: b.RequestTimeout, StartsWithin: startsWithin,
		Backoff: func(misses int) time.Duration {
			d := min(quick<<min(misses, 10), slowest)
			return d/2 + time.Duration(random.Int64N(int64(d/2)+1))
		},
		Stored: func(ready bool) {
			if g, ok := c.Gate.(Showing); ok {
				g.Shown(ready)
			}
		},
		Calm: c.Calm, Wall: c.Wall, Log: c.Log,
	}
}

func newReadiness(c Config, b api.Budget) *show.Readiness {
	_, gate := c.Gate.(Showing)
	r := show.ReadinessConfig{Slots: c.Slots, Workload: c.Workload, Mode: c.Readiness, Budget: b, Ports: c.Ports, Gate: gate}
	if c.Forwarder != nil {
		r.Forwarder = c.Forwarder
	}
	return show.NewReadiness(r)
}
