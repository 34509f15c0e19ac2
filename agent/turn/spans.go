// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package turn

import "time"

const (
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
	// proven revision started ([api.LongestTurn] is the most).
	shortestTurn = time.Minute
	// longestStartup bounds the time that probes give the application to start. Otherwise an application that
	// hangs in its turn could keep all pods from serving.
	longestStartup = time.Hour
	// slower is the factor by which a new revision may take longer to start than the proven one.
	slower = 3
)

var waits = []time.Duration{0, time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour}

// wait returns how long a revision that has had this number of turns waits for its next turn.
func wait(count int) time.Duration { return waits[min(count, len(waits)-1)] }
