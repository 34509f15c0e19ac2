// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package elector

import (
	"time"

	"github.com/metaparticle-io/metaparticle/agent/pace"
)

const (
	// PerMinute bounds the requests for one slot's Lease to two a second in the long run, whatever
	// the API server answers. A holder does not retry more often than that. After an outage, this
	// rate lets the previous holder read again within its head start ([lease.Observer]). The
	// shortest head start is 1.7 s: a sixth of the shortest lease (10 s). A request that hangs may
	// take half of the head start. Then 0.8 s are left, and this rate permits another request every
	// 0.5 s.
	PerMinute = 120
	// Burst bounds the requests for one slot's Lease that may come at once. A takeover takes
	// three requests: a read, a watch and a write. A handover takes three, too. The rest is left
	// for collisions with other pods.
	Burst = 20
)

// newPace returns the bound of the requests of one slot's Lease, or of the looks of a whole claim. The
// argument "more" is the number of requests that may come at once beyond [Burst]. The delays after
// failed requests keep an agent far below this bound, which is for unforeseen cases.
func newPace(more int) pace.Pace {
	return pace.Pace{Every: time.Minute / PerMinute, Burst: Burst + more}
}

// spareAt returns the instant from which a look at the slot of this pace may be sent. Half of the burst
// is kept for the writes that follow the look. Otherwise a look could see a free slot while the pod may
// send no write.
func spareAt(p *pace.Pace) time.Duration { return p.NextAt() + Burst/2*p.Every }

const (
	// slowest bounds the delay of a standby after a failure. If the lease is so short that a holder renews
	// more often, the time between two renewals is the bound instead.
	slowest = pace.Slowest
	// lasts is the shortest duration of a look that resets the count of failures. If each look
	// failed after that time, a standby would send two requests in 10 s. A holder of a 30 s
	// lease sends two renewals in 10 s, so the standby burdens the API server no more than that
	// holder. A read alone does not reset the count, because a server may answer reads but
	// refuse watches.
	lasts = slowest
)
