// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
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

// killChild makes a shim kill its child at once, also in the middle of a drain
// that left it more time. The agent says so once on each connection.
func (a *Agent) killChild(k *shim, reason string) {
	if !k.report.Connected || k.killed == k.report.Hold {
		return
	}
	k.told, k.killed = k.report.Hold, k.report.Hold
	if err := a.config.Gate.Drain(k.report.Shim, reason, 0); err != nil {
		a.config.Log.Warn("drain was not sent", "shim", k.report.Shim, "err", err)
	}
}

// draining reports whether the shim stops a child that may have time left.
func (s *shim) draining() bool { return s.report.Phase == gate.Draining }
