// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"net/http"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/probe"
)

// Asides is what probes ask of the gate. agent/gate implements it.
type Asides interface {
	// RunAside runs a command beside the shim's child.
	RunAside(ctx context.Context, shim gate.ShimID, command []string, timeout time.Duration) (gate.Result, error)
	// End stops the shim's child as a drain does; then its container ends.
	End(shim gate.ShimID, reason string, grace time.Duration) error
}

// reasonProbeFailed is what the shim of a child says whose startup probe failed.
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

// Probes answers the kubelet's probes, on a port.
func (a *Agent) Probes() http.Handler { return a.probes.Handler() }

// ExecProbes answers exec probes, on a socket in the shared volume.
func (a *Agent) ExecProbes() http.Handler { return a.probes.ProbeHandler() }

// follow says whose probes count: those of the hold's children, once the
// postStart hook is over and while they are not drained.
func (a *Agent) follow(h *hold) {
	children := map[string]probe.Child{}
	for _, r := range a.shims.Reports() {
		if r.Phase != gate.Running || r.Hold != h.id || r.Starting {
			continue
		}
		children[r.Container] = probe.Child{
			Shim: string(r.Shim), Hold: r.Hold, Age: max(a.now-r.Since, 0),
			Serving: h.served && r.Since < h.since,
		}
	}
	a.probes.Follow(children)
}

// serves reports whether the hold's children do what they are there for.
func (a *Agent) serves(h *hold) bool { return a.shims.Running(h.id) && a.probes.Ready() }

// noticed takes in what the probes brought.
func (a *Agent) noticed() {
	for _, n := range a.probes.Take() {
		a.events.probed(n)
		r, _ := a.shims.Last(gate.ShimID(n.Child.Shim))
		if !n.End || r.Phase != gate.Running || r.Hold != n.Child.Hold {
			continue
		}
		a.config.Log.Warn("child has not started in time", "shim", r.Shim, "hold", r.Hold)
		if err := a.config.Asides.End(r.Shim, reasonProbeFailed, n.Grace); err != nil {
			a.config.Log.Warn("end was not sent", "shim", r.Shim, "err", err)
		}
	}
}
