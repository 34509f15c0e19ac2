// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"

	"github.com/metaparticle-io/metaparticle/agent/kube"
)

// guard keeps the watch of each held slot, which the agent had as a standby, and
// begins the watch anew where it has ended. A holder whose Lease is taken hears so at
// once. Its next renewal would tell up to ten minutes later.
//
// While a renewal is overdue the agent begins no watch. The answer to the renewal
// tells more, and an API server that comes back has enough to do.
func (a *Agent) guard(ctx context.Context) {
	for _, s := range a.slots {
		switch overdue := s.held.RenewAt() + a.self.Budget.Retry; {
		case s.cancel != nil || a.now >= overdue:
		case a.now < max(s.lookAt, s.pace.spareAt()):
			a.wakeAt(max(s.lookAt, s.pace.spareAt()))
		default:
			a.look(ctx, s)
		}
	}
}

// guarded takes what was seen of a Lease that is held. An event may be an old one,
// so it only makes the agent read.
func (a *Agent) guarded(s *slot, l *kube.Lease, gone bool) {
	if gone || !a.self.Holds(recordOf(l), s.held.ID()) {
		// A renewal that is due finds out as well, and cannot be put off for ever.
		s.unread, s.tryAt = s.unread || a.now < s.held.RenewAt(), a.now
	}
}
