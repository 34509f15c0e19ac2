// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package claim

import "time"

const (
	// PerMinute bounds the requests for one slot's Lease in the long run, whatever the API
	// server answers. A holder retries at most twice a second. So after an outage the previous
	// holder can read again within its head start. The shortest head start is a sixth of 10 s,
	// and one request that hangs may take half of that time.
	PerMinute = 120
	// Burst bounds the requests that may come at once. A takeover takes three requests: a
	// read, a watch and a write. A handover takes three, too. The rest is left for
	// collisions with other pods.
	Burst = 20
)

// pace bounds the requests for one slot's Lease. The pauses after misses keep an agent far
// below this bound, which is for unforeseen cases.
type pace struct {
	// paid is the instant at which all requests so far would end at the permitted rate. A burst
	// moves this instant into the future.
	paid time.Duration
}

// nextAt returns the instant from which another request may be sent.
func (p *pace) nextAt() time.Duration { return p.paid - (Burst-1)*time.Minute/PerMinute }

// spend notes a request at now.
func (p *pace) spend(now time.Duration) { p.paid = max(p.paid, now) + time.Minute/PerMinute }

// spareAt returns the instant from which a look may be sent. Half of the burst is kept for the
// writes that follow the look. If it were not, a look could see a free slot while the pod may
// send no write.
func (p *pace) spareAt() time.Duration { return p.nextAt() + Burst/2*time.Minute/PerMinute }

const (
	// quick is the first pause after a miss. The pause is short because enroll may create a
	// pod's Role and Leases only moments after the pod has started.
	quick = 100 * time.Millisecond
	// slowest bounds the pauses of a standby. With this bound, many standbys cost an API server
	// that comes back no more than as many holders. For short leases the bound is the time
	// between two renewals.
	slowest = 10 * time.Second
	// lasts is the shortest duration of a look that resets the count of misses. One look in
	// that time costs no more requests than the renewals of a holder. A read alone does not
	// reset the count, because a server may answer reads but refuse watches.
	lasts = slowest
)

// Backoff returns the pause after this number of misses in a row.
func Backoff(misses int) time.Duration { return min(quick<<min(misses, 10), slowest) }
