// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package claim

import (
	"time"

	"github.com/metaparticle-io/metaparticle/agent/lease"
)

// spread delays the acquiring writes of a claim by random times. If many standbys write a free
// Lease at once, the API server stores one write, and refuses the others. The work for the refused
// writes delays the next requests of the pod that has acquired the slot.
type spread struct {
	// limit is the longest delay. Each conflict of an acquiring write doubles the limit, and each
	// acquisition halves the limit. So a standby without rivals soon writes without a delay.
	limit time.Duration
	// delay is the random delay of a write that replaces one version of the Lease. The field
	// "version" names this version.
	delay   time.Duration
	version string
}

const (
	// leastSpread is about the time that the API server needs for one write of a Lease.
	leastSpread = 4 * time.Millisecond
	// mostSpread is enough for the writes of a dozen standbys.
	mostSpread = 64 * time.Millisecond
)

// conflicted notes that another pod's write came before the acquiring write.
func (s *spread) conflicted() { s.limit = min(max(2*s.limit, leastSpread), mostSpread) }

// acquired notes that the acquiring write was stored.
func (s *spread) acquired() {
	if s.limit /= 2; s.limit < leastSpread {
		s.limit = 0
	}
}

// after returns the delay before this pod replaces the record. The delay stays the same for one
// version of the Lease. The argument "random" is a random number.
func (s *spread) after(r lease.Record, random func() uint64) time.Duration {
	if s.limit == 0 {
		return 0
	}
	if s.version != r.Version {
		s.version, s.delay = r.Version, time.Duration(random()%uint64(s.limit)) //nolint:gosec // limit is positive
	}
	return s.delay
}
