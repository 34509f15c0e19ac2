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

// follows remembers the hold of a pod that was the successor of a leave until now.
func (c *calm) follows(hold string) { c.followed = hold }

// serves remembers that the holder's application serves.
func (c *calm) serves(now time.Duration, hold string) {
	if c.followed == hold {
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
