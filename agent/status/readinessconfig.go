// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// Forwarder forwards the ports of the gated containers to the holder. No method waits.
type Forwarder interface {
	Open() error
	SetTarget(address string)
	Linger(delay time.Duration) (left <-chan struct{})
	Close()
}

// ReadinessConfig has the settings on which a pod's status depends.
type ReadinessConfig struct {
	api.Need
	// Identity is the identity of the pod.
	Identity string
	// Workload is the pod's workload, as Kind/name.
	Workload string
	// Mode decides whether a standby can be Ready.
	Mode   api.Readiness
	Budget api.Budget
	// Ports are the ports on which clients rely: a standby that cannot forward them is not Ready.
	// The Forwarder may have further ports, which only probes name.
	Ports api.Ports
	// Forwarder is nil if the pod forwards nothing.
	Forwarder Forwarder
	// Gate reports that the pod has the gate "readiness".
	Gate bool
	// Jitter shortens a pause between two checks by a random part, at most by half. If Jitter is
	// nil, each pause keeps its length.
	Jitter func(pause time.Duration) time.Duration
}

// quiet reports whether a holder's status may stay for a moment after the hold. After a leave the pod
// is not Ready, and another Ready pod forwards. Of a semaphore or of shards, most pods without
// declared ports are in no Service. With the gate "readiness" a Ready pod must hold, so its status
// changes at once.
func (c ReadinessConfig) quiet(leaves bool) bool {
	return !c.Gate && (leaves || c.Any && len(c.Ports) == 0)
}

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
