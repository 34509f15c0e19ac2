// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/wait"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// Waiter is a pod with conditions. The pod's init container runs the code of agent/wait. The
// world judges only that container, so the pod is gone as soon as the container succeeds.
type Waiter struct {
	w *World
	// Name is the name of the pod, and Node its machine.
	Name string
	Node *Node
	rng  *rand.Rand
	// Conditions are the pod's conditions. The container waits for them one after the other.
	Conditions []api.Condition
	// succeeded is called when the container has succeeded.
	succeeded func(*Waiter)
	// Client is the client of the last process; nil before the first start. The field "began" is
	// the instant at which that process started.
	Client *apiserver.Client
	began  time.Duration
	starts int
	// FrozenAlone reports that the process is frozen, but not its node. The field "gone" reports that
	// the container has succeeded, or that the pod is deleted.
	FrozenAlone, gone bool
}

// NewWaiter adds the pod to the node, whose kubelet soon starts the container.
func NewWaiter(w *World, name string, n *Node, conditions []api.Condition, succeeded func(*Waiter)) *Waiter {
	p := &Waiter{w: w, Name: name, Node: n, rng: w.Source(name), Conditions: conditions, succeeded: succeeded}
	n.Tenants = append(n.Tenants, p)
	p.register()
	w.Note(name, "pod on %s waits until %v", n.Name, conditions)
	w.After(engine.Between(p.rng, 10*time.Millisecond, time.Second), p.start)
	return p
}

// register stores the pod's object in the API server, for enroll.
func (p *Waiter) register() {
	args := api.ConditionArgs{Conditions: p.Conditions}.Args()
	storePod(p.w.API, p.Name, p.Node.Name, podObject{gated: api.GatedAfter, init: map[string]any{"name": api.AfterContainer, "args": args}})
}

// Runs reports whether a process of the container lives.
func (p *Waiter) Runs() bool { return p.Client != nil && !p.Client.Dead }

// start starts the container, unless the container runs or has succeeded.
func (p *Waiter) start() {
	switch {
	case p.gone || p.Runs() || !p.Node.Up:
		return
	case p.Node.Paused:
		p.Node.whenUnpaused(p.start)
		return
	}
	p.starts++
	name := fmt.Sprintf("%s#%d", p.Name, p.starts)
	c := p.w.newClient(p.w.NewProcess(), name, p.Node)
	c.Allowed, c.Waits = p.w.rightsOf(ConditionRoleName), true
	p.Client, p.began, p.FrozenAlone = c, p.w.Now(), false
	if p.Node.frozen {
		c.Process.Freeze()
	}
	p.w.Note(name, "agent after starts")
	config := wait.Config{
		API: c, Conditions: p.Conditions, PodName: p.Name, PodUID: "uid-of-" + p.Name, Log: p,
		Random: rand.NewPCG(p.w.Seed, p.w.Source(name).Uint64()),
	}
	p.w.Group.Go(func() {
		err := wait.Conditions(c.Ctx, config)
		p.w.Do(func() { p.exited(c, err) })
	})
}

// Write adds a line of the process to the history.
func (p *Waiter) Write(line []byte) (int, error) {
	p.w.Do(func() { p.w.Note(p.Name, "%s", strings.TrimSpace(string(line))) })
	return len(line), nil
}

// exited handles the end of a process that has ended by itself. After an error, the kubelet starts
// the container again. After a success the pod goes on, so exited checks that the pod's conditions
// were met.
func (p *Waiter) exited(c *apiserver.Client, err error) {
	if c.Dead {
		return
	}
	p.w.Note(p.Name, "agent after exits: %v", err)
	c.Die()
	if err != nil {
		p.again()
		return
	}
	p.w.checkMet(p.Name, p.Conditions, p.began)
	p.gone = true
	p.succeeded(p)
}

// MostAgain bounds the back-off of the container.
const MostAgain = 10 * time.Second

// again starts the container after its back-off.
func (p *Waiter) again() { p.w.After(engine.Between(p.rng, 200*time.Millisecond, MostAgain), p.start) }

// Kill ends the process, and the kubelet starts the container again.
func (p *Waiter) Kill() {
	p.crash()
	p.again()
}

// Delete ends the process for good. The method waiters.remove of package story deletes the pod's
// object.
func (p *Waiter) Delete() {
	p.crash()
	p.gone = true
}

// PauseAlone freezes the process for the given time, but not its node.
func (p *Waiter) PauseAlone(last time.Duration) {
	p.FrozenAlone = true
	p.freeze()
	p.w.Note(p.Name, "agent after is frozen for %v", last)
	c := p.Client
	p.w.After(last, func() {
		if p.Client == c {
			p.Resume()
		}
	})
}

// Resume undoes PauseAlone.
func (p *Waiter) Resume() {
	p.FrozenAlone = false
	if !p.Node.frozen {
		p.thaw()
	}
}

// freeze implements Tenant.
func (p *Waiter) freeze() {
	if p.Runs() {
		p.Client.Process.Freeze()
	}
}

// thaw implements Tenant.
func (p *Waiter) thaw() {
	if p.Runs() && !p.FrozenAlone {
		p.Client.Process.Thaw()
	}
}

// crash implements Tenant.
func (p *Waiter) crash() {
	if p.Runs() {
		p.Client.Die()
		p.w.Note(p.Name, "agent after is dead")
	}
}

// leapt implements Tenant. The method does nothing, because agent/wait needs no wall clock.
func (p *Waiter) leapt() {}

// Boot implements Tenant.
func (p *Waiter) Boot() {
	p.w.After(engine.Between(p.rng, 500*time.Millisecond, 3*time.Second), p.start)
}
