// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/lease"
)

// lostGrace returns the grace of children whose slot is lost. A Lease of another
// pod, or of nobody, may have another child already: a grace would be a time in
// which two run. A Lease that still names this pod lets nobody else begin.
func (a *Agent) lostGrace(err error) time.Duration {
	lost, ok := errors.AsType[*lease.LostError](err)
	if ok && lost.Holder == a.self.Identity {
		return a.self.Budget.Drain
	}
	return 0
}

// taken reports whether another pod may run under a slot of this hold.
func (a *Agent) taken() bool {
	for _, s := range a.slots {
		if s.lost != nil && a.lostGrace(s.lost) == 0 {
			return true
		}
	}
	return false
}
