// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/local"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// localPod is a pod whose program uses the local API. The pod has one container besides the
// agent.
type localPod struct {
	w         *World
	name, uid string
	node      *node
	rng       *rand.Rand
	claims    []api.Claim
	duration  time.Duration
	// agent is the last process of the agent. The field "program" is the last process of the
	// container. Each field is nil before the first start.
	agent          *localAgent
	program        *program
	agents, starts int
	// starter starts the program. The field leashed reports that shims kill the program when a hold
	// is lost. Such a program obeys no answer of the local API.
	starter
	leashed bool
	bidders []*bidder
	adder   *adder
}

// starter starts the program of a pod, directly or through a shim.
type starter interface {
	start()
	// lives reports whether a shim lives, and end ends that shim.
	lives() bool
	end()
	// attach connects a new process of the agent to the shims. hangUp is called when that process
	// is dead.
	attach(a *localAgent, config *local.Config)
	hangUp()
	// leapt is called when the wall clock was set.
	leapt()
}

// direct is the starter of a pod without a shim.
type direct struct{ *localPod }

func (d direct) start() {
	d.starts++
	d.runProgram()
}
func (direct) lives() bool                       { return false }
func (direct) end()                              {}
func (direct) attach(*localAgent, *local.Config) {}
func (direct) hangUp()                           {}
func (direct) leapt()                            {}

// newLocalPod adds the pod to the node, whose kubelet soon starts the containers. For each
// claim the program has one or two bidders.
func newLocalPod(w *World, name string, n *node, duration time.Duration, claims []api.Claim) *localPod {
	p := &localPod{
		w: w, name: name, uid: fmt.Sprintf("pod-uid-%d", w.Number()), node: n, rng: w.Source(name), claims: claims, duration: duration,
	}
	p.starter = direct{p}
	for _, c := range claims {
		p.bidders = append(p.bidders, newBidder(p, c))
		if engine.Chance(p.rng, .3) {
			p.bidders = append(p.bidders, newBidder(p, c))
		}
	}
	p.adder = newAdder(p)
	n.tenants = append(n.tenants, p)
	w.locals = append(w.locals, p)
	w.checks.apart[p.identity()] = true
	if claims[0].Kind == api.RWLock {
		w.checks.rivals[p.identity()] = p
	}
	w.Note(name, "pod on %s, lease duration %v, claims %s", n.name, duration, claims[0].LocalText())
	w.After(engine.Between(p.rng, 10*time.Millisecond, time.Second), p.boot)
	return p
}

func (p *localPod) identity() string { return api.Identity(p.name, p.uid) }

// slots returns the slots of all claims.
func (p *localPod) slots() (slots []string) {
	for _, c := range p.claims {
		slots = append(slots, c.Slots(api.Workload{})...)
	}
	return slots
}

// allowed returns nil, or the error with which the API server refuses a request for a Lease.
func (p *localPod) allowed(verb, lease string) error {
	if !p.w.api.Granted(RoleName, verb, lease) {
		return apiserver.Status(403, "Forbidden", verb+" "+lease)
	}
	return nil
}

// serves reports whether an agent process of the pod lives. The method runs reports whether the
// program lives.
func (p *localPod) serves() bool { return p.agent != nil && !p.agent.Dead }
func (p *localPod) runs() bool   { return p.program != nil && !p.program.Dead }

// killAgent ends the agent's process. The kubelet starts a new process after the pause in the
// argument "back".
func (p *localPod) killAgent(back time.Duration) {
	if p.serves() {
		p.agent.kill()
	}
	p.w.After(back, p.startAgent)
}

// killProgram ends the program. The kubelet starts the program again after the pause in the
// argument "back".
func (p *localPod) killProgram(back time.Duration) {
	p.starter.end()
	if p.runs() {
		p.program.kill()
	}
	p.w.After(back, p.startProgram)
}

// freeze implements tenant.
func (p *localPod) freeze() {
	if p.serves() {
		p.agent.Process.Freeze()
	}
	if p.runs() {
		p.program.Process.Freeze()
	}
}

// thaw implements tenant.
func (p *localPod) thaw() {
	if p.runs() && !p.program.frozen && !p.program.iced {
		p.program.goOn()
	}
	if p.serves() && !p.agent.frozen {
		p.agent.goOn()
	}
}

// crash implements tenant.
func (p *localPod) crash() {
	p.starter.end()
	if p.runs() {
		p.program.kill()
	}
	if p.serves() {
		p.agent.kill()
	}
}

// boot implements tenant. The kubelet starts the agent, which is a sidecar, before the program.
func (p *localPod) boot() {
	pause := engine.Between(p.rng, 500*time.Millisecond, 2*time.Second)
	p.w.After(pause, p.startAgent)
	p.w.After(pause+engine.Between(p.rng, 10*time.Millisecond, time.Second), p.startProgram)
}

// leapt implements tenant.
func (p *localPod) leapt() {
	p.starter.leapt()
	if p.serves() {
		p.agent.WhenThawed(func() { wakeUp(p.agent.leaps) })
	}
}

// startProgram starts the program or its shim, unless it runs.
func (p *localPod) startProgram() {
	switch {
	case p.runs() || !p.node.up || p.lives():
	case p.node.paused:
		p.node.whenUnpaused(p.startProgram)
	default:
		p.start()
	}
}
