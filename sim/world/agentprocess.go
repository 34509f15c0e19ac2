// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent"
	"github.com/metaparticle-io/metaparticle/agent/probe"
	"github.com/metaparticle-io/metaparticle/agent/standin"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// agentProcess is one process of the agent's container.
type agentProcess struct {
	*apiserver.Client
	pod     *pod
	name    string
	gateway *gateway // nil until the process listens
	agent   *agent.Agent
	stop    chan struct{}
	stopped bool
	frozen  bool
	began   time.Duration
	// first reports that the process is the first one of the pod.
	first bool
	leaps chan struct{} // signals each leap of the wall clock
	// backlog has the connections that the desk has yet to accept.
	backlog    []*link
	connected  engine.Signal
	unlistened bool
	// blocked is not nil while the agent's loop stands still. The other goroutines of the
	// agent go on.
	blocked chan struct{}
}

// startAgent starts an agent process, which begins once it has the flock.
func (p *pod) startAgent() {
	if p.gone || !p.node.up {
		return
	}
	p.agentRuns++
	proc := p.w.NewProcess()
	a := &agentProcess{
		first: p.agentRuns == 1, pod: p, stop: make(chan struct{}), connected: engine.NewSignal(), began: p.w.Now(), leaps: make(chan struct{}, 1),
	}
	a.name = fmt.Sprintf("%s/agent#%d", p.name, p.agentRuns)
	a.Client = p.w.newClient(proc, p.identity(), p.node)
	a.Client.Allowed, a.Client.Patched = p.allowed, p.shown.patch
	p.agents = append(p.agents, a)
	p.w.Note(a.name, "agent starts")
	if p.node.frozen {
		a.Freeze()
	}
	p.relock()
}

// relock gives the flock of the pod to the first living agent process, unless a living process
// has the flock already.
func (p *pod) relock() {
	if p.lock != nil && !p.lock.Process.Dead {
		return
	}
	for _, a := range p.agents {
		if !a.Process.Dead {
			p.lock = a
			a.begin()
			return
		}
	}
}

// begin runs the agent in the process, as cmd/agent does for the pod's gate.
func (a *agentProcess) begin() {
	p, w := a.pod, a.pod.w
	life, start := api.SplitSlots(p.slots)
	config := agent.Config{
		PodName: p.name, PodUID: p.uid, PodIP: "10.0.0." + p.uid[len("pod-uid-"):], Slots: life, StartSlots: start, Any: p.any, First: a.first, Shards: p.shards,
		Containers: p.template.containers, Workload: "Deployment/" + p.workload,
		InitContainers: p.inits,
		LeaseDuration:  p.duration, Grace: p.grace, Readiness: api.ReadinessHolder, BootID: p.node.boot,
		API: a.Client, Clock: a.clock, Leaps: a.leaps,
		Wall:   a.wall,
		Random: rand.NewPCG(w.Seed, w.Source(a.name+p.uid).Uint64()),
	}
	if p.revision.Valid() {
		config.Revision, config.Readiness, config.ReplacesUnready = p.revision, api.ReadinessForward, p.strict
	}
	if p.endpointDelay > 0 {
		config.Ports, config.EndpointDelay = []int{80}, p.endpointDelay
	}
	if p.behaviour.probed {
		config.Probes = map[string]api.Probes{p.template.containers[0]: {Readiness: &api.Probe{
			PeriodSeconds: 1, TimeoutSeconds: 1, SuccessThreshold: 1, FailureThreshold: 3,
		}}}
		config.Probe = a.probe
	}
	run := a.runShims
	switch p.gate {
	case api.GatePod:
		run = a.runPod
	case api.GateReadiness:
		run = a.runReadiness
		a.yieldWhenStopped()
	default:
	}
	w.Group.Go(func() {
		err := run(config)
		w.Do(func() { a.exited(err) })
	})
}

// runShims runs the agent's process in a pod with shims.
func (a *agentProcess) runShims(config agent.Config) error {
	g, err := openGateway(a)
	if err != nil {
		return err // the process is dead already
	}
	config.Gate, config.Granted, config.Asides, config.Dismiss = g, g.granted, g, g.dismiss
	config.OnBusy, config.WaitAtMost, config.NoteCourse = a.pod.onBusy, a.pod.waitAtMost, a.noteCourse
	config.Job, config.OnceKey = a.pod.job, a.pod.key
	a.pod.w.Do(func() { config.Course = a.pod.course })
	made, err := agent.New(config)
	engine.Must(err)
	a.pod.w.Do(func() { a.gateway, a.agent = g, made })
	return made.Run(a.Process.Ctx, a.stop)
}

// noteCourse stores the course of the pod, which outlives the agent's process.
func (a *agentProcess) noteCourse(c agent.Course) error {
	if !a.Enter() {
		return engine.ErrDead
	}
	defer a.Leave()
	a.pod.course = c
	return nil
}

// probe carries out the readiness probe of the pod's first container.
func (a *agentProcess) probe(context.Context, api.Handler, string, time.Duration) (r probe.Result) {
	if !a.Enter() {
		return r
	}
	defer a.Leave()
	r.Outcome = probe.Failure
	if a.pod.containers[0].ready() {
		r.Outcome = probe.Success
	}
	return r
}

// yieldWhenStopped makes the agent yield when the process gets SIGTERM, as cmd/agent does
// for gates without shims.
func (a *agentProcess) yieldWhenStopped() {
	a.pod.w.Group.Go(func() {
		select {
		case <-a.stop:
			if a.Enter() {
				made := a.agent
				a.Leave()
				if made != nil {
					made.Yield()
				}
			}
		case <-a.Process.Ctx.Done():
		}
	})
}

// leapt signals to an agent that the wall clock was set. Shims notice a leap by themselves, but
// between the end of a container and the start of the next one no shim lives.
func (a *agentProcess) leapt() {
	a.WhenThawed(func() { wakeUp(a.leaps) })
}

// clock reads the node's clock for the agent's loop. The read waits while the process
// is frozen, or its loop is blocked.
func (a *agentProcess) clock() time.Duration {
	for a.Enter() {
		blocked, now := a.blocked, a.pod.node.Now()
		a.Leave()
		if blocked == nil {
			return now
		}
		select {
		case <-blocked:
		case <-a.Process.Ctx.Done():
		}
	}
	a.pod.w.Lock()
	defer a.pod.w.Unlock()
	return a.pod.node.Now()
}

// wall returns the node's wall clock.
func (a *agentProcess) wall() time.Time {
	a.pod.w.Lock()
	defer a.pod.w.Unlock()
	return time.Now().Add(a.pod.node.wallOff)
}

// block stops the agent's loop for a while. The loop's call of [agentProcess.clock] returns only
// after [agentProcess.unblock]. All other goroutines go on.
func (a *agentProcess) block(last time.Duration) {
	if a.blocked != nil {
		return
	}
	a.pod.w.Note(a.name, "the loop is blocked for %v", last)
	a.blocked = make(chan struct{})
	a.pod.w.After(last, a.unblock)
}

// unblock lets the loop go on.
func (a *agentProcess) unblock() {
	if a.blocked != nil {
		close(a.blocked)
		a.blocked = nil
	}
}

// exited cleans up after the agent has returned, with or without an error. Unless the pod is
// being stopped, the kubelet then restarts the agent, or all containers of the pod.
func (a *agentProcess) exited(err error) {
	p := a.pod
	if !a.Process.Dead {
		p.w.Note(a.name, "agent exits: %v", err)
		a.kill()
		switch {
		case errors.Is(err, standin.ErrRestart):
			p.order.restartAll()
		case !p.stopping:
			p.restartAgent()
		}
	}
}

// kill ends the process immediately.
func (a *agentProcess) kill() {
	if a.Process.Dead {
		return
	}
	p := a.pod
	a.Die()
	p.w.Note(a.name, "agent is dead")
	for _, c := range p.containers {
		for _, s := range c.shims {
			if s.link != nil && s.link.agent == a {
				s.link.close()
			}
		}
	}
	p.agents = slices.DeleteFunc(p.agents, func(other *agentProcess) bool { return other == a })
	p.sockets.hangUp(a.Process)
	p.relock()
	p.tidy()
}

// restartAgent starts an agent process after a moment. The function starts nothing if by then the
// pod has an agent process, is being stopped, or restarts all containers.
func (p *pod) restartAgent() {
	p.w.After(engine.Between(p.rng, 200*time.Millisecond, 2*time.Second), func() {
		if !p.stopping && !p.order.restarting && len(p.agents) == 0 {
			p.startAgent()
		}
	})
}

// terminate sends SIGTERM to the agent.
func (a *agentProcess) terminate() {
	if !a.stopped {
		a.stopped = true
		a.pod.w.Note(a.name, "agent is told to stop")
		close(a.stop)
	}
}

// freezeAlone freezes the process, but not its node.
func (a *agentProcess) freezeAlone() {
	a.frozen = true
	a.pod.w.Note(a.name, "agent is frozen")
	a.Freeze()
}

// thawAlone undoes freezeAlone.
func (a *agentProcess) thawAlone() {
	if a.frozen {
		a.frozen = false
		a.pod.w.Note(a.name, "agent thaws")
		if !a.pod.node.frozen {
			a.Thaw()
		}
	}
}
