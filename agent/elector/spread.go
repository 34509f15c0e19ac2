// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package elector

import (
	"time"

	"github.com/metaparticle-io/metaparticle/agent/lease"
)

// spread bounds the random delays before the acquiring writes of a claim. If many standbys write a
// free Lease at once, the API server stores one write, and refuses the others. The work for the
// refused writes delays the next requests of the pod that has acquired the slot.
//
// A pod finds its limit by trial, because no pod knows the number of the others. A conflict doubles the
// limit, and a takeover without a conflict shortens the limit a little. If the limits of all standbys
// stay about the same, one of six standbys conflicts in each takeover.
type spread struct {
	// limit is the longest delay.
	limit time.Duration
}

// mostSpread bounds the delays, so that a slow API server never prolongs a takeover noticeably.
const mostSpread = 256 * time.Millisecond

// conflicted remembers that another pod's write came before the acquiring write, and how long the
// refusal of the acquiring write took. If the API server is fast, this time is short.
func (s *spread) conflicted(took time.Duration) { s.limit = min(max(took, 2*s.limit), mostSpread) }

// acquired remembers that an acquiring write was stored. So a standby without rivals soon writes
// without a delay.
func (s *spread) acquired() { s.limit /= 2 }

// spared remembers that another pod acquired the slot during this pod's delay.
func (s *spread) spared() { s.limit -= s.limit / 8 }

// delay is the random delay before the pod replaces a version of the slot's Lease.
type delay struct {
	length  time.Duration
	version string
	// waits reports that the version is free, and that the pod has not written it.
	waits bool
}

// before returns the delay before this pod replaces the record. The delay stays the same for one
// version of the Lease. The argument "random" returns random numbers.
func (d *delay) before(r lease.Record, s *spread, random func() uint64) time.Duration {
	if s.limit == 0 {
		return 0
	}
	if d.version != r.Version {
		if d.waits && r.Holder != "" {
			s.spared()
		}
		d.length, d.version = time.Duration(random()%uint64(s.limit)), r.Version //nolint:gosec // limit is positive
		d.waits = r.Holder == ""
	}
	return d.length
}

// over remembers that the pod writes now.
func (d *delay) over() { d.waits = false }
