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

// reasonProbeFailed is the reason in the order by which the agent ends a child whose startup
// probe failed.
const reasonProbeFailed = "startup probe failed"

func newProbes(c Config) *probe.Monitor {
	return probe.New(probe.Config{
		Probes: c.Probes, Address: c.PodIP, Grace: c.Grace, Do: c.Probe,
		Run: func(ctx context.Context, child probe.Child, command []string, timeout time.Duration) probe.Result {
			r, err := c.Shims.RunAside(ctx, gate.ShimID(child.Shim), command, timeout)
			switch {
			case err != nil:
				return probe.Result{Output: err.Error()}
			case r.TimedOut:
				return probe.TimedOut(command, timeout)
			}
			return probe.Exited(r.Code, string(r.Output))
		},
	})
}

// followChildren tells the probe monitor which children to probe. A child of the hold is probed from the
// end of its postStart hook until its drain begins.
func (h *hold) followChildren() {
	// The decision in h.turn may be older than the rollout that the agent last read from the
	// Lease. So here the rollout counts, and not that decision.
	proven := h.state.rollout.takesTurns() && h.state.config.Revision.Same(h.turns.Rollout.Proven)
	children := map[string]probe.Child{}
	for _, r := range h.state.shims.Reports() {
		if r.Phase != gate.Running || r.Hold != h.id || r.Starting {
			continue
		}
		children[r.Container] = probe.Child{
			Shim: string(r.Shim), Hold: r.Hold, Age: max(h.state.now-r.Since, 0),
			Serving: h.served && r.Since < h.since, Adopted: h.state.config.slotless() && r.Since < h.state.began, Spared: proven && h.state.config.ReplacesUnready,
		}
	}
	h.state.probes.Follow(children)
}

// serves reports whether the children of the hold run and pass their readiness probes.
func (h *hold) serves() bool { return h.state.shims.Running(h.id) && h.state.probes.Ready() }

// noticed writes Events about the results of probes, and ends each child whose startup probe
// failed.
func (s *state) noticed(now time.Duration) {
	for _, n := range s.probes.Take() {
		s.events.Probed(now, n)
		r, _ := s.shims.Last(gate.ShimID(n.Child.Shim))
		if !n.End || r.Phase != gate.Running || r.Hold != n.Child.Hold {
			continue
		}
		s.config.Log.Warn("child has not started in time", "shim", r.Shim, "hold", r.Hold)
		if err := s.config.Shims.End(r.Shim, reasonProbeFailed, n.Grace); err != nil {
			s.config.Log.Warn("end was not sent", "shim", r.Shim, "err", err)
		}
	}
}

// complete reports whether every container of the application has a running child of the hold, and
// the postStart hook of each such child has ended. A revision whose second container crashes is not
// proven, although the first container serves.
func (s *state) complete(hold string) bool {
	return !slices.ContainsFunc(s.config.Containers, func(container string) bool {
		return !slices.ContainsFunc(s.shims.Reports(), func(r gate.Report) bool {
			return r.Container == container && r.Phase == gate.Running && r.Hold == hold && !r.Starting
		})
	})
}
