// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import "time"

const (
	// perMinute bounds the requests for one slot's Lease in the long run, whatever
	// the API server answers. Two a second are the most that a holder's retries come
	// to. They let the pod that held read again within its head start, even with the
	// shortest lease (a sixth of 10 s, of which a request may hang half).
	perMinute = 120
	// burst bounds the requests that may come at once. A takeover and a handover
	// take six: a read, a watch and a write each. Collisions with other pods have
	// the rest.
	burst = 20
)

// pace bounds the requests for one slot's Lease. Pauses between misses keep an
// agent far below it; pace holds where a case was overlooked.
type pace struct {
	// paid is the instant until which the requests so far would be spread evenly.
	paid time.Duration
}

// nextAt returns the instant from which another request may be sent.
func (p *pace) nextAt() time.Duration { return p.paid - (burst-1)*time.Minute/perMinute }

// spend notes a request at now.
func (p *pace) spend(now time.Duration) { p.paid = max(p.paid, now) + time.Minute/perMinute }

// spareAt is nextAt for looks: half of the burst is left to the writes that follow. A
// look that spent the last of it would see a free slot, and be blind again before the
// write may be sent.
func (p *pace) spareAt() time.Duration { return p.nextAt() + burst/2*time.Minute/perMinute }
