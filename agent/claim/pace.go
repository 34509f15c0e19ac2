// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package claim

import "time"

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

// pace bounds the requests for one slot's Lease. The delays after failed requests keep an agent far
// below this bound, which is for unforeseen cases.
type pace struct {
	// paid is the instant from which another request keeps the rate [PerMinute] without a burst.
	// Each request moves this instant by a minute divided by PerMinute. So a burst of requests
	// moves the instant far into the future.
	paid time.Duration
	// The field "more" is the number of requests that may come at once beyond [Burst].
	more time.Duration
}

// nextAt returns the instant from which another request may be sent.
func (p *pace) nextAt() time.Duration { return p.paid - (Burst-1+p.more)*time.Minute/PerMinute }

// spend counts a request that is sent at the instant "now".
func (p *pace) spend(now time.Duration) { p.paid = max(p.paid, now) + time.Minute/PerMinute }

// spareAt returns the instant from which a look may be sent. Half of the burst is kept for the
// writes that follow the look. Otherwise a look could see a free slot while the pod may send no
// write.
func (p *pace) spareAt() time.Duration { return p.nextAt() + Burst/2*time.Minute/PerMinute }

const (
	// quick is the first delay after a failure. The delay is short because enroll may create a
	// pod's Role and Leases only moments after the pod has started.
	quick = 100 * time.Millisecond
	// slowest bounds the delay of a standby after a failure. With this bound, a standby burdens an
	// API server after an outage about as much as a holder does. A holder of a 60 s lease renews
	// every 10 s. If the lease is shorter, the time between two renewals is the bound instead.
	slowest = 10 * time.Second
	// lasts is the shortest duration of a look that resets the count of failures. If each look
	// failed after that time, a standby would send two requests in 10 s. A holder of a 30 s
	// lease sends two renewals in 10 s, so the standby burdens the API server no more than that
	// holder. A read alone does not reset the count, because a server may answer reads but
	// refuse watches.
	lasts = slowest
)

// Backoff returns the delay after a failed request. The argument "misses" is the number of requests
// that failed before this one.
func Backoff(misses int) time.Duration { return min(quick<<min(misses, 10), slowest) }
