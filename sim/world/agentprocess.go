// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"syscall"
	"time"

	"github.com/metaparticle-io/metaparticle/agent"
	"github.com/metaparticle-io/metaparticle/agent/podgate"
	"github.com/metaparticle-io/metaparticle/agent/probe"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// AgentProcess is one process of the agent's container.
type AgentProcess struct {
	*apiserver.Client
	// Pod is the pod of the agent.
	Pod *Pod
	// Name is the name of the process in the history of events.
	Name    string
	gateway *gateway     // nil until the process listens
	agent   *agent.Agent // the code of the agent; nil until the code runs
	stop    chan struct{}
	// Stopped reports that the process got SIGTERM.
	Stopped bool
	// FrozenAlone reports that the process is frozen, but not its node.
	FrozenAlone bool
	began       time.Duration
	// first reports that the process is the first one of the pod.
	first bool
	// yieldedAt is the instant of the last call of [AgentProcess.Yield].
	yieldedAt time.Duration
	leaps     chan struct{} // signals each leap of the wall clock
	// backlog has the connections that the server has yet to accept.
	backlog    []*link
	connected  engine.Signal
	unlistened bool
	// blocked is not nil while the agent's loop stands still. The other goroutines of the
	// agent go on.
	blocked chan struct{}
}

// StartAgent starts an agent process. The process runs the agent once the process has the pod's
// flock.
func (p *Pod) StartAgent() {
	if p.Gone || !p.Node.Up {
		return
	}
	p.agentRuns++
	proc := p.w.NewProcess()
	a := &AgentProcess{
		first: p.agentRuns == p.earlier+1, Pod: p, stop: make(chan struct{}), connected: engine.NewSignal(), began: p.w.Now(), leaps: make(chan struct{}, 1),
	}
	a.Name = fmt.Sprintf("%s/agent#%d", p.Name, p.agentRuns)
	a.Client = p.w.newClient(proc, p.Identity(), p.Node)
	a.Client.Allowed, a.Client.Patched = p.allowed, p.Shown.patch
	p.Agents = append(p.Agents, a)
	p.w.Note(a.Name, "agent starts")
	if p.Node.frozen {
		a.Freeze()
	}
	p.relock()
}

// relock gives the flock of the pod to the first living agent process, unless a living process
// has the flock already.
func (p *Pod) relock() {
	if p.lock != nil && !p.lock.Process.Dead {
		return
	}
	for _, a := range p.Agents {
		if !a.Process.Dead {
			p.lock = a
			a.begin()
			return
		}
	}
}

// begin runs the agent in the process, as cmd/agent does for the pod's gate.
func (a *AgentProcess) begin() {
	p, w := a.Pod, a.Pod.w
	life, start := api.SplitSlots(p.Slots)
	config := agent.Config{
		Pod: agent.Pod{
			PodName: p.Name, PodUID: p.uid, PodIP: "10.0.0." + p.uid[len("pod-uid-"):], Workload: "Deployment/" + p.Workload,
			Containers: p.Template.Containers, InitContainers: p.Inits, Grace: p.Grace, BootID: p.Node.boot, OwnKernel: w.OwnKernel,
		},
		Claims: agent.Claims{
			Need: api.Need{Slots: life, Any: p.Any, Shards: p.Shards}, StartSlots: start,
			Settings: p.Settings,
		},
		Past: agent.Past{First: a.first},
		Outside: agent.Outside{
			API: a.Client, Clock: a.clock, Leaps: a.leaps, Ahead: aheadOf(a), Wall: a.wall,
			Random: rand.NewPCG(w.Seed, w.Source(a.Name+p.uid).Uint64()),
		},
	}
	if p.Gate != api.GateReadiness {
		p.boots = noteBoot(p.boots, p.Node.boot)
		config.Boots = p.boots
	}
	config.Readiness = api.ReadinessHolder
	if p.Revision.Valid() {
		config.Revision, config.Readiness, config.ReplacesUnready = p.Revision, api.ReadinessForward, p.Strict
	}
	if config.Contact = p.contact; p.supports() {
		config.PodIP, config.Ask = p.contact.Addr().String(), a.ask
	}
	if p.Preferred() {
		config.Preferred = agent.PrefersSelf
	} else if p.Behaviour.Prefers != "" {
		config.Preferred = agent.PrefersOthers
	}
	if p.EndpointDelay > 0 {
		config.Ports, config.EndpointDelay = api.Ports{{Number: 80}}, p.EndpointDelay
	}
	if p.Behaviour.Probed {
		config.Probes = map[string]api.Probes{p.Template.Containers[0]: {Readiness: &api.Probe{
			PeriodSeconds: 1, TimeoutSeconds: 1, SuccessThreshold: 1, FailureThreshold: 3,
		}}}
		config.Probe = a.probe
	}
	run := a.runShims
	switch p.Gate {
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

// noteBoot returns the boot ids in the notes of a pod's volume, after the agent has noted the boot.
func noteBoot(boots []string, boot string) []string {
	if slices.Contains(boots, boot) {
		return boots
	}
	return append(slices.Clone(boots), boot)
}

// runShims runs the agent's process in a pod with shims.
func (a *AgentProcess) runShims(config agent.Config) error {
	g, err := openGateway(a)
	if err != nil {
		return err // the process is dead already
	}
	config.Gate, config.Granted, config.Shims = g, g.granted, g
	config.NoteCourse = a.noteCourse
	config.Job = a.Pod.Job
	if config.OnceKey = a.Pod.Key; config.Shards > 0 {
		config.OnceKey, config.Run = "", a.Pod.Key
	}
	a.Pod.w.Do(func() { config.Course = a.Pod.course })
	made, err := agent.New(config)
	engine.Must(err)
	a.Pod.w.Do(func() { a.gateway, a.agent = g, made })
	if a.Pod.YieldAfter > 0 {
		a.Pod.w.Group.Go(func() { a.probed(made.Probes()) })
	}
	return made.Run(a.Process.Ctx, a.stop)
}

// probed sends the readiness probes of the kubelet, once a second. Only in a pod whose application may
// hang do they matter: an agent probes the application itself until the application has passed once.
func (a *AgentProcess) probed(handler http.Handler) {
	path := "/probe/" + a.Pod.Template.Containers[0] + "/" + api.ReadinessProbe
	for tick := time.NewTicker(time.Second); ; {
		select {
		case <-a.Process.Ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
			handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(a.Process.Ctx, http.MethodGet, path, http.NoBody))
		}
	}
}

// noteCourse stores the course of the pod outside of the agent's process, because the course
// outlives that process.
func (a *AgentProcess) noteCourse(c agent.Course) error {
	if !a.Enter() {
		return engine.ErrDead
	}
	defer a.Leave()
	if a.Pod.Full {
		return syscall.ENOSPC
	}
	a.Pod.course = c
	return nil
}

// probe carries out the readiness probe of the pod's first container.
func (a *AgentProcess) probe(context.Context, api.Handler, string, time.Duration) (r probe.Result) {
	if !a.Enter() {
		return r
	}
	defer a.Leave()
	r.Outcome = probe.Failure
	if a.Pod.Containers[0].ready() {
		r.Outcome = probe.Success
	}
	return r
}

// yieldWhenStopped makes the agent yield when the process gets SIGTERM, as cmd/agent does
// for gates without shims.
func (a *AgentProcess) yieldWhenStopped() {
	a.Pod.w.Group.Go(func() {
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
// between the end of a container and the start of the next container no shim lives. At such a
// time only this signal tells the agent of a leap.
func (a *AgentProcess) leapt() {
	a.WhenThawed(func() { wakeUp(a.leaps) })
}

// aheadOf returns a function that tells how far the wall clock of the process's node was set ahead.
func aheadOf(a *AgentProcess) func() time.Duration {
	return func() (by time.Duration) {
		if a.Enter() {
			defer a.Leave()
			by = a.Pod.Node.set
		}
		return by
	}
}

// clock reads the node's clock for the agent's loop. The read waits while the process is frozen, or
// the agent's loop is blocked.
func (a *AgentProcess) clock() time.Duration {
	for a.Enter() {
		blocked, now := a.blocked, a.Pod.Node.Now()
		a.Leave()
		if blocked == nil {
			return now
		}
		select {
		case <-blocked:
		case <-a.Process.Ctx.Done():
		}
	}
	a.Pod.w.Lock()
	defer a.Pod.w.Unlock()
	return a.Pod.Node.Now()
}

// wall returns the node's wall clock.
func (a *AgentProcess) wall() time.Time {
	a.Pod.w.Lock()
	defer a.Pod.w.Unlock()
	return time.Now().Add(a.Pod.Node.wallOff)
}

// Block stops the agent's loop for a while. The loop's call of [AgentProcess.clock] returns only
// after [AgentProcess.unblock]. All other goroutines go on.
func (a *AgentProcess) Block(last time.Duration) {
	if a.blocked != nil {
		return
	}
	a.Pod.w.Note(a.Name, "the loop is blocked for %v", last)
	a.blocked = make(chan struct{})
	a.Pod.w.After(last, a.unblock)
}

// unblock lets the loop go on.
func (a *AgentProcess) unblock() {
	if a.blocked != nil {
		close(a.blocked)
		a.blocked = nil
	}
}

// exited cleans up after the agent has returned, with or without an error. Unless the pod is
// being stopped, the kubelet then restarts the agent, or all containers of the pod.
func (a *AgentProcess) exited(err error) {
	p := a.Pod
	if !a.Process.Dead {
		p.w.Note(a.Name, "agent exits: %v", err)
		a.Kill()
		switch {
		case errors.Is(err, podgate.ErrRestart):
			p.Order.restartAll()
		case !p.Stopping:
			p.RestartAgent()
		}
	}
}

// Kill ends the process immediately.
func (a *AgentProcess) Kill() {
	if a.Process.Dead {
		return
	}
	p := a.Pod
	a.Die()
	p.w.Note(a.Name, "agent is dead")
	for _, c := range p.Containers {
		for _, s := range c.Shims {
			if s.link != nil && s.link.agent == a {
				s.link.close()
			}
		}
	}
	p.Agents = slices.DeleteFunc(p.Agents, func(other *AgentProcess) bool { return other == a })
	p.sockets.hangUp(a.Process)
	p.relock()
	p.tidy()
}

// RestartAgent starts an agent process after a moment. The function starts nothing if by then
// the pod has an agent process, is being stopped, or restarts all containers.
func (p *Pod) RestartAgent() {
	p.w.After(engine.Between(p.rng, 200*time.Millisecond, 2*time.Second), func() {
		if !p.Stopping && !p.Order.restarting && len(p.Agents) == 0 {
			p.StartAgent()
		}
	})
}

// Terminate sends SIGTERM to the agent.
func (a *AgentProcess) Terminate() {
	if !a.Stopped {
		a.Stopped = true
		a.Pod.w.Note(a.Name, "agent is told to stop")
		close(a.stop)
	}
}

// Up reports whether the process runs the agent's code, so that [AgentProcess.Yield] may be called.
func (a *AgentProcess) Up() bool { return a.agent != nil }

// Yield makes the agent give up its slots, so that another pod can hold.
func (a *AgentProcess) Yield() {
	a.yieldedAt = a.Pod.w.Now()
	a.agent.Yield()
}

// FreezeAlone freezes the process, but not its node.
func (a *AgentProcess) FreezeAlone() {
	a.FrozenAlone = true
	a.Pod.w.Note(a.Name, "agent is frozen")
	a.Freeze()
}

// ThawAlone undoes [AgentProcess.FreezeAlone].
func (a *AgentProcess) ThawAlone() {
	if a.FrozenAlone {
		a.FrozenAlone = false
		a.Pod.w.Note(a.Name, "agent thaws")
		if !a.Pod.Node.frozen {
			a.Thaw()
		}
	}
}
