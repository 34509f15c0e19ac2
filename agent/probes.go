// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/probe"
)

// Asides runs the commands of probes beside the child. agent/desk implements Asides.
type Asides interface {
	// RunAside runs a command beside the shim's child.
	RunAside(ctx context.Context, shim gate.ShimID, command []string, timeout time.Duration) (gate.Result, error)
	// End stops the shim's child as a drain does, and then the shim ends its container.
	End(shim gate.ShimID, reason string, grace time.Duration) error
}

// reasonProbeFailed is the reason for which a child ends after its failed startup
// probe.
const reasonProbeFailed = "startup probe failed"

func newProbes(c Config) *probe.Monitor {
	return probe.New(probe.Config{
		Probes: c.Probes, Address: c.PodIP, Grace: c.Grace, Do: c.Probe,
		Run: func(ctx context.Context, child probe.Child, command []string, timeout time.Duration) probe.Result {
			r, err := c.Asides.RunAside(ctx, gate.ShimID(child.Shim), command, timeout)
			return probe.Ran(command, timeout, r.Code, string(r.Output), r.TimedOut, err)
		},
	})
}

// follow names the children whose probes count: those of the hold, once the postStart
// hook is over and while they are not drained.
func (h *hold) follow() {
	u := h.unit
	// The field h.turn still has the loop's last decision. The agent may have read the rollout
	// from the Lease after that decision, so the rollout itself counts here.
	proven := u.rollout.takesTurns() && u.config.Revision.Same(h.rollout.facts.Rollout.Proven)
	children := map[string]probe.Child{}
	for _, r := range u.shims.Reports() {
		if r.Phase != gate.Running || r.Hold != h.id || r.Starting {
			continue
		}
		children[r.Container] = probe.Child{
			Shim: string(r.Shim), Hold: r.Hold, Age: max(h.loop.now-r.Since, 0),
			Serving: h.served && r.Since < h.since, Adopted: u.config.slotless() && r.Since < u.began, Spared: proven && u.config.ReplacesUnready,
		}
	}
	u.probes.Follow(children)
}

// serves reports whether the hold's children run and pass their readiness probes.
func (h *hold) serves() bool { return h.unit.shims.Running(h.id) && h.unit.probes.Ready() }

// noticed acts on the results of probes.
func (u *unit) noticed() {
	for _, n := range u.probes.Take() {
		u.events.Probed(n)
		r, _ := u.shims.Last(gate.ShimID(n.Child.Shim))
		if !n.End || r.Phase != gate.Running || r.Hold != n.Child.Hold {
			continue
		}
		u.config.Log.Warn("child has not started in time", "shim", r.Shim, "hold", r.Hold)
		if err := u.config.Asides.End(r.Shim, reasonProbeFailed, n.Grace); err != nil {
			u.config.Log.Warn("end was not sent", "shim", r.Shim, "err", err)
		}
	}
}

// complete reports whether a child of the hold runs in every container of the
// application, and its postStart hook is over. A version whose second container crashes
// is broken, although the first one serves.
func (u *unit) complete(hold string) bool {
	return !slices.ContainsFunc(u.config.Containers, func(container string) bool {
		return !slices.ContainsFunc(u.shims.Reports(), func(r gate.Report) bool {
			return r.Container == container && r.Phase == gate.Running && r.Hold == hold && !r.Starting
		})
	})
}
