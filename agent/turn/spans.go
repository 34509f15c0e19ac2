// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package turn

import (
	"math"
	"time"
)

// Never is the instant that does not come.
const Never = time.Duration(math.MaxInt64)

const (
	// Proof is the time for which a revision has to serve before it is proven. Without a
	// readiness probe an application that exits at once serves for an instant, too.
	Proof = 10 * time.Second
	// Rest is the time that a holder serves between two yields, whoever asks. An asker
	// that dies costs a stop, so this allows one stop a minute.
	Rest = time.Minute
	// Forget is the time for which a proven revision keeps the count of its turns. While an
	// old pod is left, the count stalls a version that crashes some minutes after its start.
	Forget = 10 * time.Minute
	// LastResort is the time for which a slot stays free before a revision with a failed
	// turn takes it. An old pod acts within seconds, so none is left by then.
	LastResort = 30 * time.Second
	// oldFirst is the time for which a slot stays free before a revision that is not proven
	// takes it. The pods of the proven revision act within milliseconds.
	oldFirst = time.Second
	// elsewhere is the time that a pod after a failed turn leaves the other pods of its
	// revision to ask. The others ask as soon as they see that the holder yields.
	elsewhere = 5 * time.Second

	// shortestTurn is the least time that a turn may last without serving. Twice as long
	// as an application's usual start is enough for a slow node.
	shortestTurn = time.Minute
	// longestTurn is the default progress deadline of a Deployment. The controller calls
	// a rollout failed after it.
	longestTurn = 10 * time.Minute
	// slower is how much slower than the proven revision a new one may start.
	slower = 3
)

// waits are the times between two turns of one revision, by the turns that it has had.
// The last one stays.
var waits = []time.Duration{0, time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour}

// wait returns the time that a holder leaves a revision of so many turns to wait.
func wait(count int) time.Duration { return waits[min(count, len(waits)-1)] }

const (
	// Again is the period in which an asker without an answer writes its ask again.
	Again = 10 * time.Second
	// Fresh is the age to which an ask counts. The write that follows may take a while.
	Fresh = Again + 5*time.Second
)
