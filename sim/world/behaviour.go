// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"math/rand/v2"
	"time"

	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// Behaviour describes how a version of the application starts, serves and ends. An application with
// the zero value serves immediately, and never ends.
type Behaviour struct {
	// Name is the name of the version in the history of events.
	Name string
	// Starts is the time until the application passes its readiness probe; negative for never.
	Starts time.Duration
	// Lasts is the time after which the application exits; 0 means never.
	Lasts time.Duration
	// Probed reports that the template has a readiness probe.
	Probed bool
	// stubborn reports that the application ignores SIGTERM.
	stubborn bool
	// Imageless reports that no container starts, because its image is missing.
	Imageless bool
	// Prefers is the zone that the version's template prefers; empty for none.
	Prefers string
}

// mostBroken is the longest life of the application of a broken version. In that time
// even the fastest clock counts less than api.TurnProof, so the version is never proven.
const mostBroken = 9 * time.Second

// Broken reports whether docs/operate/rollouts.md calls the version broken.
func (v Behaviour) Broken() bool {
	return v.Imageless || v.Starts < 0 || v.Lasts > 0 && v.Lasts <= mostBroken
}

// Serves reports whether an application of the given age passes its readiness probe.
func (v Behaviour) Serves(age time.Duration) bool {
	return !v.Probed || v.Starts >= 0 && age >= v.Starts
}

// MostStart bounds the time that a good version takes to start.
const MostStart = 4 * time.Second

// GoodVersion draws a version that serves, and does not end.
func GoodVersion(r *rand.Rand) Behaviour {
	return Behaviour{Name: "good", Starts: engine.Between(r, 100*time.Millisecond, MostStart), Probed: engine.Chance(r, .7)}
}

// BrokenVersion draws a broken version, whose rollout must never complete.
func BrokenVersion(r *rand.Rand) Behaviour {
	switch r.IntN(6) {
	case 0:
		return ExitingVersion(r)
	case 1:
		return Behaviour{Name: "never Ready", Starts: -1, Probed: true}
	case 2:
		return Behaviour{Name: "hangs", Starts: -1, Probed: true, stubborn: true}
	case 3:
		return Behaviour{Name: "has no image", Imageless: true}
	}
	return Behaviour{Name: "crashes after it was Ready once", Lasts: engine.Between(r, 3*time.Second, mostBroken), Probed: engine.Chance(r, .5)}
}

// ExitingVersion draws a version that exits within a second.
func ExitingVersion(r *rand.Rand) Behaviour {
	return Behaviour{Name: "exits at once", Lasts: engine.Between(r, time.Millisecond, time.Second), Probed: engine.Chance(r, .5)}
}

// LateVersion draws a version that crashes so late that the version may already be proven. No rule
// promises that the rollout of such a version ends.
func LateVersion(r *rand.Rand) Behaviour {
	return Behaviour{Name: "crashes later", Lasts: engine.Between(r, 20*time.Second, 2*time.Minute), Probed: engine.Chance(r, .5)}
}
