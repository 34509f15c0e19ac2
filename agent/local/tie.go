// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package local

import (
	"time"

	"github.com/metaparticle-io/metaparticle/agent/instant"
	"github.com/metaparticle-io/metaparticle/agent/leash"
)

// tie passes the state of the claim to the leash. If the argument "join" is true, a program that
// started after the acquisition may know the hold from now on. The result is false if the grant
// of a shim may end after the hold's deadline. In this case tie requests a renewal. Until the
// renewal is stored, the agent tells no program that the program has the hold.
func (k *keeper) tie(join bool) (covered bool) {
	t := leash.Tie{Deadline: instant.Never, Leaps: k.leaps}
	if k.hold != nil {
		t.Deadline, t.Unrenewed = k.hold.deadline, k.hold.unrenewed
	}
	covered = k.config.Leash.Tie(k.index, t, join)
	if covered || k.hold.unrenewed {
		return covered
	}
	// The deadlines of grants and renewals count from the instant of sending. The leash has
	// sent all present grants before this instant, and prolongs no tied grant beyond the hold's
	// present deadline. So a renewal that is sent from now on moves the hold's deadline past
	// all tied grants.
	k.now = k.config.Clock()
	k.leapt(k.now)
	k.hold.unrenewed, k.renews = true, true
	return false
}

// untie tells the leash that the hold has ended. If a program may still work under the hold, the
// shims kill each program that may know the hold.
func (k *keeper) untie(h *hold) {
	if !h.returned && !h.owed {
		k.config.Log.Warn("a hold has ended that no program gave back", "lease", h.slot, "hold", h.number)
		k.config.Leash.Break(k.index)
		return
	}
	switch {
	case !h.owed || h.returned:
	case k.stopping:
		h.bid.done <- outcome{problem: stoppingProblem}
	default:
		k.bids = append([]*bid{h.bid}, k.bids...)
	}
	k.tie(false)
}

// The method "leapt" makes the claim renew immediately, as after a leap of the wall clock.
// Until that renewal is stored, the agent tells no program that its hold is good.
func (k *keeper) leapt(now time.Duration) {
	k.claim.Leapt(now)
}

// learnLeap makes the claim renew its hold, because shims have reported a leap. The argument
// "leaps" is the number of such leaps so far.
func (k *keeper) learnLeap(now time.Duration, leaps int) {
	k.leapt(now)
	k.leaps = leaps
	if k.hold != nil {
		k.hold.unrenewed = true
	}
	k.tie(false)
}
