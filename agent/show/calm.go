// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package show

import "time"

// calm postpones changes of the pod's status. A write of the status, and its effects in the cluster,
// would delay the handover.
type calm struct {
	// until is the instant until which the status stays as it is.
	until time.Duration
	// The field "quiet" reports that the pod held at the last decision, and that its status may stay
	// for a moment after the hold.
	quiet bool
	// The field "followed" has the pod's hold if the pod got that hold as the successor of a leave,
	// until the application serves.
	followed string
}

// holds remembers a decision about a holder, whose application serves or not. The argument "follows"
// reports that the pod was the successor of a leave until now. The argument "quiet" reports that the
// pod's status may stay for a moment after the hold.
func (c *calm) holds(now time.Duration, hold string, serves, follows, quiet bool) {
	c.quiet = quiet
	if follows {
		c.followed = hold
	}
	if serves && c.followed == hold {
		c.followed, c.until = "", now+Calm
	}
}

// stands remembers a decision about a standby.
func (c *calm) stands(now time.Duration) {
	if c.quiet && now >= c.until {
		c.until = now + Calm
	}
	c.quiet = false
}
