// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"maps"
	"math/rand/v2"
	"net"
	"syscall"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// gateway is the real server of an agent process, on a modelled machine. A frozen or dead
// process sends no orders through its gateway.
type gateway struct {
	agent  *AgentProcess
	server *gate.Server
	// reports is the channel from the server to the agent's loop. In some worlds the reports are
	// delayed.
	reports <-chan gate.Report
}

// openGateway makes the server of a process that has the flock. The caller does not hold
// the mutex.
func openGateway(a *AgentProcess) (*gateway, error) {
	beat := a.Pod.beat()
	server, err := gate.NewServer(
		gate.Config{RequirePID1: true, OwnKernel: a.Pod.w.OwnKernel, Silence: beat * 5 / 2, Unbounded: a.Pod.StartsOnly()},
		gate.Machine{BootID: a.Pod.Node.boot, Now: a.now, Shims: listener{a}, Notes: notes{a}},
	)
	if err != nil {
		return nil, err
	}
	g := &gateway{agent: a, server: server, reports: server.Reports()}
	if a.Pod.LateReader > 0 {
		late := make(chan gate.Report)
		a.Pod.w.Group.Go(func() { g.delay(server.Reports(), late) })
		g.reports = late
	}
	a.Pod.w.Group.Go(func() { engine.Must(server.Run(a.Process.Ctx)) })
	return g, nil
}

// delay passes each report to the agent's loop after a random delay. If several reports on one shim
// fall into the delay, the loop gets only the last one.
func (g *gateway) delay(reports <-chan gate.Report, late chan<- gate.Report) {
	r := g.agent.Pod.w.Source(g.agent.Name + g.agent.Pod.uid + " reader")
	done := g.agent.Process.Ctx.Done()
	var found []gate.Report
	for {
		var out chan<- gate.Report
		var next gate.Report
		if len(found) > 0 {
			out, next = late, found[0]
		}
		select {
		case out <- next:
			found = found[1:]
		case report := <-reports:
			found = last(found, report)
			found = g.collect(found, reports, time.After(g.lateness(r)))
		case <-done:
			return
		}
	}
}

// collect adds each arriving report to the list "found". When the time is up, or the process is
// dead, collect returns the list.
func (g *gateway) collect(found []gate.Report, reports <-chan gate.Report, up <-chan time.Time) []gate.Report {
	for {
		select {
		case report := <-reports:
			found = last(found, report)
		case <-up:
			return found
		case <-g.agent.Process.Ctx.Done():
			return found
		}
	}
}

// last adds the report to the list. The report replaces an earlier report of the same shim.
func last(found []gate.Report, report gate.Report) []gate.Report {
	for i, r := range found {
		if r.Shim == report.Shim {
			found[i] = report
			return found
		}
	}
	return append(found, report)
}

// lateness draws the delay with which the agent's loop reads a report.
func (g *gateway) lateness(r *rand.Rand) time.Duration {
	g.agent.Pod.w.Lock()
	defer g.agent.Pod.w.Unlock()
	return engine.Between(r, 0, g.agent.Pod.LateReader+1)
}

// Reports implements agent.Gate.
func (g *gateway) Reports() <-chan gate.Report { return g.reports }

// Dismiss implements agent.Shims.
func (g *gateway) Dismiss(id gate.ShimID, d gate.Dismiss) error {
	if !g.agent.runs() {
		return engine.ErrDead
	}
	return g.server.Dismiss(id, d)
}

// Notify implements agent.Shims.
func (g *gateway) Notify(id gate.ShimID, line string) error {
	if !g.agent.runs() {
		return engine.ErrDead
	}
	return g.server.Notify(id, line)
}

// Grant implements agent.Gate.
func (g *gateway) Grant(id gate.ShimID, grant gate.Grant) error {
	if !g.agent.runs() {
		return engine.ErrDead
	}
	return g.server.Grant(id, grant)
}

// Drain implements agent.Gate.
func (g *gateway) Drain(id gate.ShimID, reason string, grace time.Duration) error {
	if !g.agent.runs() {
		return engine.ErrDead
	}
	return g.server.Drain(id, reason, grace)
}

// End implements agent.Shims.
func (g *gateway) End(id gate.ShimID, reason string, grace time.Duration) error {
	if !g.agent.runs() {
		return engine.ErrDead
	}
	return g.server.End(id, reason, grace)
}

// RunAside implements agent.Shims. The world has no exec probes, so RunAside always
// fails.
func (g *gateway) RunAside(context.Context, gate.ShimID, []string, time.Duration) (gate.Result, error) {
	return gate.Result{}, apiserver.ErrUnreachable
}

// granted reports whether a shim of the container may have been granted the hold. If the
// agent process is dead, the function returns true.
func (g *gateway) granted(container, hold string) bool {
	return !g.agent.runs() || g.server.Granted(container, hold)
}

// runs waits while the process is frozen, and returns false if the process is dead.
func (a *AgentProcess) runs() bool {
	if !a.Enter() {
		return false
	}
	a.Leave()
	return true
}

// now reads the node's clock for all goroutines of the process except the agent's loop. The loop
// calls [AgentProcess.clock] instead, which does not return while a fault blocks the loop.
func (a *AgentProcess) now() time.Duration {
	if !a.Enter() {
		a.Pod.w.Lock()
	}
	defer a.Pod.w.Unlock()
	return a.Pod.Node.Now()
}

// listener is the agent's socket.
type listener struct{ *AgentProcess }

// Accept implements gate.Listener.
func (l listener) Accept() (gate.Conn, error) {
	var next *link
	ready := func() bool {
		if l.unlistened {
			return true
		}
		if len(l.backlog) > 0 {
			next, l.backlog = l.backlog[0], l.backlog[1:]
		}
		return next != nil
	}
	if !l.Process.Await(&l.connected, ready) || next == nil {
		return nil, net.ErrClosed
	}
	return agentEnd{next}, nil
}

// Close implements gate.Listener.
func (l listener) Close() error {
	l.Pod.w.Lock()
	defer l.Pod.w.Unlock()
	l.unlistened = true
	l.connected.Give()
	return nil
}

// notes are the files in the pod's volume, which survive the agent.
type notes struct{ *AgentProcess }

// Read implements gate.Notes.
func (n notes) Read() (all map[string][]byte, err error) {
	err = n.touch(func(pod *Pod) { all = maps.Clone(pod.notes) })
	return all, err
}

// Write implements gate.Notes.
func (n notes) Write(name string, note []byte) error {
	full := false
	err := n.touch(func(pod *Pod) {
		if full = pod.Full; !full {
			pod.notes[name] = note
		}
	})
	if full {
		return syscall.ENOSPC
	}
	return err
}

// Remove implements gate.Notes.
func (n notes) Remove(name string) error {
	return n.touch(func(pod *Pod) { delete(pod.notes, name) })
}

// touch applies the function to the pod. Unlike other methods, touch does not wait while the
// process is frozen, because the server calls touch with the server's mutex locked. Goroutines that
// wait for a mutex stop the time of the synctest bubble.
func (n notes) touch(do func(*Pod)) error {
	n.Pod.w.Lock()
	defer n.Pod.w.Unlock()
	if n.Process.Dead {
		return context.Canceled
	}
	do(n.AgentProcess.Pod)
	return nil
}
