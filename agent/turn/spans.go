// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package turn

import "time"

const (
	// Proof is how long the application must serve in a turn before its pod is Ready. After a
	// further [Pod.MinReady] the revision is proven. Proof is not zero: without a readiness
	// probe, even an application that exits at once would serve for a moment.
	Proof = 10 * time.Second
	// Rest is how long a holder serves between two yields, whichever pod asks ([Pod.fresh]). An application that stops
	// for nothing, because its successor has died since its answer, does so once a minute at most.
	Rest = time.Minute
	// Settled is how long a holder serves before it yields to a preferred pod, and how long a preferred pod must be
	// Ready before it wishes for the slot. So preferences move a slot at most once in that time.
	Settled = 5 * time.Minute
	// Forget is how long a revision must be proven before the count of its turns is removed. So while an old pod
	// is left, a revision that crashes some minutes after its start still has to wait for its next turn.
	Forget = 10 * time.Minute
	// LastResort is how long a slot must be free before a revision whose turn has failed may take it. An old pod
	// would take it within seconds, so no old pod is left then.
	LastResort = 30 * time.Second
	// oldFirst is how long a slot must be free before a revision that is not proven may take it. The pods of the
	// proven revision act within milliseconds, so they go first.
	oldFirst = time.Second
	// elsewhere is the delay before a pod whose turn has failed asks again, once the holder would yield. The
	// other pods of the same revision ask immediately, so they go first.
	elsewhere = 5 * time.Second

	// shortestTurn is the least time that an application has in its turn to begin to serve, however fast the
	// proven revision started, and longestTurn the most, unless its probes give more. A Deployment's
	// progressDeadlineSeconds are ten minutes by default, too.
	shortestTurn = time.Minute
	longestTurn  = 10 * time.Minute
	// longestStartup bounds the time that probes give the application to start. Otherwise an application that
	// hangs in its turn could keep all pods from serving.
	longestStartup = time.Hour
	// slower is the factor by which a new revision may take longer to start than the proven one.
	slower = 3
)

var waits = []time.Duration{0, time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour}

// wait returns how long a revision that has had this number of turns waits for its next turn.
func wait(count int) time.Duration { return waits[min(count, len(waits)-1)] }

// hangWait returns how long a hold lasts before it ends because its application hangs, by the number
// of such ends so far: a minute, and each time twice as long, up to an hour. So a cause that is behind
// all pods, such as a dead database, does not make the slot wander.
func hangWait(count int) time.Duration { return min(time.Minute<<min(count, 6), time.Hour) }
