// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import "time"

// synced decides how a GET of metaparticle/sync is answered after a loss of the keeper's lock.
//
// The client in Rust learns of a loss only by GET: the client ignores the answer to the PUT of a
// heartbeat. But while this client waits for the lock, the client sends no PUT before a GET has the
// answer 200. So the answer 404 must come after each loss, and must not last for ever.
type synced struct {
	// known reports that this process has seen the Lease. The field "held" reports that a client
	// may have got a hold, from this process or from an earlier one.
	known, held bool
	// toldAt is the instant of the first answer 404 since the loss; zero for none.
	toldAt time.Duration
}

// syncTells is the time for which a GET gets the answer 404 after a loss. Within this time each
// client sends two heartbeats.
const syncTells = 2 * syncGood

// holds remembers that a client has a good hold.
func (s *synced) holds() { s.held, s.toldAt = true, 0 }

// refused remembers that a PUT gets the answer 409. If the client ignores this answer, the client must
// learn of the loss by its next GET.
func (s *synced) refused() { s.toldAt = 0 }

// lost reports whether a GET without a good hold gets the answer 404.
func (s *synced) lost(now time.Duration) bool {
	if s.held && s.toldAt == 0 {
		s.toldAt = now
	}
	return s.held && now < s.toldAt+syncTells
}
