// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"time"
)

const (
	// Proof is the time for which the application has to serve before its pod is Ready in
	// a turn. After a further [Pod.MinReady] the revision is proven. Proof is not zero
	// because, without a readiness probe, even an application that exits at once serves
	// for an instant.
	Proof = 10 * time.Second
	// Rest is the time that a holder serves between two yields, whichever pod asks. An
	// asker that dies after the yield costs the holder a stop. So Rest allows one such
	// stop a minute.
	Rest = time.Minute
	// Forget is the time after which the count of a proven revision's turns is cleared. Until
	// then each turn delays the next one. So a version that crashes some minutes after its
	// start still waits for its next turn while an old pod is left.
	Forget = 10 * time.Minute
	// LastResort is the time for which a slot stays free before a revision with a
	// failed turn takes the slot. An old pod would take the slot within seconds, so
	// none is left by then.
	LastResort = 30 * time.Second
	// oldFirst is the time for which a slot stays free before a revision that is not
	// proven takes the slot. The pods of the proven revision act within milliseconds,
	// so they go first.
	oldFirst = time.Second
	// elsewhere is the time for which a pod whose turn has failed lets the other pods
	// of its revision ask first. They ask as soon as they see that the holder yields.
	elsewhere = 5 * time.Second

	// shortestTurn is the least time within which an application has to begin to serve in
	// its turn, however fast the proven revision started.
	shortestTurn = time.Minute
	// longestTurn is the most time within which an application has to begin to serve in its
	// turn, unless the probes give more. By default, a Deployment's controller calls a
	// rollout failed after ten minutes, too.
	longestTurn = 10 * time.Minute
	// longestStartup bounds the time that probes give to a start. The time needs a bound
	// because, while a version hangs in its turn, no pod serves.
	longestStartup = time.Hour
	// slower is the factor by which a new revision may start more slowly than the
	// proven one.
	slower = 3
)

// waits are the times that a revision waits for its next turn, by the number of its turns
// so far. The last time also applies to all later turns.
var waits = []time.Duration{0, time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour}

// wait returns the time that a revision waits for its next turn after so many turns.
func wait(count int) time.Duration { return waits[min(count, len(waits)-1)] }

const (
	// Again is the period in which an asker without an answer writes its ask again.
	Again = 10 * time.Second
	// Fresh is the age up to which an ask counts. Fresh is longer than Again, because
	// the next write of the ask may take a while.
	Fresh = Again + 5*time.Second
)
