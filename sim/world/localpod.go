// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/local"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// LocalPod is a pod whose program uses the local API. The pod has one container besides the
// agent.
type LocalPod struct {
	w *World
	// Name is the name of the pod.
	Name, uid string
	// Node is the machine of the pod.
	Node   *Node
	rng    *rand.Rand
	claims []api.Claim
	// Duration is the lease duration of all claims.
	Duration time.Duration
	// Agent is the last process of the agent. The field Program is the last process of the
	// container. Each field is nil before the first start.
	Agent          *LocalAgent
	Program        *program
	agents, starts int
	// boots are the boot ids in the notes of the pod's volume.
	boots []string
	// starter starts the program. The field Leashed reports that shims kill the program when a hold
	// is lost. Such a program obeys no answer of the local API.
	starter
	Leashed bool
	// Bidders are the parts of the program that bid. The field Adder is the part that adds to
	// Variables.
	Bidders []*Bidder
	Adder   *adder
}

// starter starts the program of a pod, directly or through a shim.
type starter interface {
	start()
	// lives reports whether a shim lives, and end ends that shim.
	lives() bool
	end()
	// attach connects a new process of the agent to the shims. hangUp is called when that process
	// is dead.
	attach(a *LocalAgent, config *local.Config)
	hangUp()
	// leapt is called when the wall clock was set.
	leapt()
}

// direct is the starter of a pod without a shim.
type direct struct{ *LocalPod }

func (d direct) start() {
	d.starts++
	d.runProgram()
}
func (direct) lives() bool                       { return false }
func (direct) end()                              {}
func (direct) attach(*LocalAgent, *local.Config) {}
func (direct) hangUp()                           {}
func (direct) leapt()                            {}

// NewLocalPod adds the pod to the node, whose kubelet soon starts the containers. For each
// claim the program has one or two bidders.
func NewLocalPod(w *World, name string, n *Node, duration time.Duration, claims []api.Claim) *LocalPod {
	p := &LocalPod{
		w: w, Name: name, uid: fmt.Sprintf("pod-uid-%d", w.Number()), Node: n, rng: w.Source(name), claims: claims, Duration: duration,
	}
	p.starter = direct{p}
	for _, c := range claims {
		p.Bidders = append(p.Bidders, newBidder(p, c))
		if engine.Chance(p.rng, .3) {
			p.Bidders = append(p.Bidders, newBidder(p, c))
		}
	}
	p.Adder = newAdder(p)
	n.Tenants = append(n.Tenants, p)
	w.Locals = append(w.Locals, p)
	p.store()
	w.Checks.apart[p.identity()] = true
	if claims[0].Kind == api.RWLock {
		w.Checks.rivals[p.identity()] = p
	}
	w.Note(name, "pod on %s, lease duration %v, claims %s", n.Name, duration, claims[0].LocalText())
	w.After(engine.Between(p.rng, 10*time.Millisecond, time.Second), p.Boot)
	return p
}

// store stores the object of the pod for the real enroll. The model of enroll reads [World.Locals]
// instead. In a world with the model no such object exists. An object would use up numbers of
// [engine.Engine.Number], and so change the names and the random sources of later pods.
func (p *LocalPod) store() {
	if p.w.Real {
		storePod(p.w.API, p.Name, p.Node.Name, withLocal(p.claims, "", p.Duration))
	}
}

// Slots returns the slots of all claims.
func (p *LocalPod) Slots() (slots []string) {
	for _, c := range p.claims {
		slots = append(slots, c.Slots(api.Workload{})...)
	}
	return slots
}

// Serves reports whether an agent process of the pod lives.
func (p *LocalPod) Serves() bool { return p.Agent != nil && !p.Agent.Dead }

// Runs reports whether the program lives.
func (p *LocalPod) Runs() bool { return p.Program != nil && !p.Program.Dead }

// KillAgent ends the agent's process. The kubelet starts a new process after the delay in the
// argument "back".
func (p *LocalPod) KillAgent(back time.Duration) {
	if p.Serves() {
		p.Agent.Kill()
	}
	p.w.After(back, p.startAgent)
}

// KillProgram ends the program. The kubelet starts the program again after the delay in the
// argument "back".
func (p *LocalPod) KillProgram(back time.Duration) {
	p.starter.end()
	if p.Runs() {
		p.Program.kill()
	}
	p.w.After(back, p.startProgram)
}

// freeze implements Tenant.
func (p *LocalPod) freeze() {
	if p.Serves() {
		p.Agent.Process.Freeze()
	}
	if p.Runs() {
		p.Program.Process.Freeze()
	}
}

// thaw implements Tenant.
func (p *LocalPod) thaw() {
	if p.Runs() && !p.Program.FrozenAlone && !p.Program.iced {
		p.Program.goOn()
	}
	if p.Serves() && !p.Agent.FrozenAlone {
		p.Agent.goOn()
	}
}

// crash implements Tenant.
func (p *LocalPod) crash() {
	p.starter.end()
	if p.Runs() {
		p.Program.kill()
	}
	if p.Serves() {
		p.Agent.Kill()
	}
}

// Boot implements Tenant. The kubelet starts the agent, which is a sidecar, before the program.
func (p *LocalPod) Boot() {
	pause := engine.Between(p.rng, 500*time.Millisecond, 2*time.Second)
	p.w.After(pause, p.startAgent)
	p.w.After(pause+engine.Between(p.rng, 10*time.Millisecond, time.Second), p.startProgram)
}

// leapt implements Tenant.
func (p *LocalPod) leapt() {
	p.starter.leapt()
	if p.Serves() {
		p.Agent.WhenThawed(func() { wakeUp(p.Agent.leaps) })
	}
}

// startProgram starts the program or its shim, unless the program or a shim lives.
func (p *LocalPod) startProgram() {
	switch {
	case p.Runs() || !p.Node.Up || p.lives():
	case p.Node.Paused:
		p.Node.whenUnpaused(p.startProgram)
	default:
		p.start()
	}
}
