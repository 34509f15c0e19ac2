// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"math/rand/v2"
	"time"

	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// behaviour describes how a version of the application starts, serves and ends. An application with
// the zero value serves immediately, and never ends.
type behaviour struct {
	name string
	// starts is the time until the application passes its readiness probe; negative for never.
	starts time.Duration
	// lasts is the time after which the application exits; 0 means never.
	lasts time.Duration
	// probed reports that the template has a readiness probe.
	probed bool
	// stubborn reports that the application ignores SIGTERM.
	stubborn bool
	// imageless reports that no container starts, because its image is missing.
	imageless bool
}

// mostBroken is the longest life of the application of a broken version. In that time
// even the fastest clock counts less than turn.Proof, so the version is never proven.
const mostBroken = 9 * time.Second

// broken reports whether docs/rollouts.md calls the version broken.
func (v behaviour) broken() bool {
	return v.imageless || v.starts < 0 || v.lasts > 0 && v.lasts <= mostBroken
}

// serves reports whether an application of the given age passes its readiness probe.
func (v behaviour) serves(age time.Duration) bool {
	return !v.probed || v.starts >= 0 && age >= v.starts
}

// mostStart bounds the time that a good version takes to start.
const mostStart = 4 * time.Second

// goodVersion draws a version that serves, and does not end.
func goodVersion(r *rand.Rand) behaviour {
	return behaviour{name: "good", starts: engine.Between(r, 100*time.Millisecond, mostStart), probed: engine.Chance(r, .7)}
}

// brokenVersion draws a broken version, whose rollout must never complete.
func brokenVersion(r *rand.Rand) behaviour {
	switch r.IntN(6) {
	case 0:
		return exitingVersion(r)
	case 1:
		return behaviour{name: "never Ready", starts: -1, probed: true}
	case 2:
		return behaviour{name: "hangs", starts: -1, probed: true, stubborn: true}
	case 3:
		return behaviour{name: "has no image", imageless: true}
	}
	return behaviour{name: "crashes after it was Ready once", lasts: engine.Between(r, 3*time.Second, mostBroken), probed: engine.Chance(r, .5)}
}

// exitingVersion draws a version that exits within a second.
func exitingVersion(r *rand.Rand) behaviour {
	return behaviour{name: "exits at once", lasts: engine.Between(r, time.Millisecond, time.Second), probed: engine.Chance(r, .5)}
}

// lateVersion draws a version that crashes after it was proven. No rule promises that its
// rollout ends.
func lateVersion(r *rand.Rand) behaviour {
	return behaviour{name: "crashes later", lasts: engine.Between(r, 20*time.Second, 2*time.Minute), probed: engine.Chance(r, .5)}
}
