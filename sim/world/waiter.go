// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/after"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// waiter is a pod with conditions. The pod's init container runs the code of agent/after. The
// world judges only that container, so the pod is gone as soon as the container succeeds.
type waiter struct {
	w          *World
	name       string
	node       *node
	rng        *rand.Rand
	conditions []api.Condition
	// succeeded is called when the container has succeeded.
	succeeded func(*waiter)
	// client is the client of the last process; nil before the first start. The field "began" is
	// the instant at which that process started.
	client *apiserver.Client
	began  time.Duration
	starts int
	// frozen reports that the process is frozen, but not its node. The field "gone" reports that
	// the container has succeeded, or that the pod is deleted.
	frozen, gone bool
}

// newWaiter adds the pod to the node, whose kubelet soon starts the container.
func newWaiter(w *World, name string, n *node, conditions []api.Condition, succeeded func(*waiter)) *waiter {
	p := &waiter{w: w, name: name, node: n, rng: w.Source(name), conditions: conditions, succeeded: succeeded}
	n.tenants = append(n.tenants, p)
	p.register()
	w.Note(name, "pod on %s waits until %v", n.name, conditions)
	w.After(engine.Between(p.rng, 10*time.Millisecond, time.Second), p.start)
	return p
}

// register stores the pod's object in the API server, for enroll.
func (p *waiter) register() {
	p.w.api.Object("Pod", p.name)
	_, err := p.w.api.Create("kubelet", "Pod", p.name, apiserver.Encode(map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"name": p.name, "namespace": Namespace, "labels": map[string]any{api.GatedLabel: api.GatedAfter}},
		"spec": map[string]any{
			"serviceAccountName": account, "nodeName": p.node.name,
			"initContainers": []any{map[string]any{"name": api.AfterContainer, "args": api.ConditionArgs{Conditions: p.conditions}.Args()}},
		},
		"status": map[string]any{"phase": "Pending"},
	}))
	engine.Must(err)
}

// runs reports whether a process of the container lives.
func (p *waiter) runs() bool { return p.client != nil && !p.client.Dead }

// start starts the container, unless it runs or has succeeded.
func (p *waiter) start() {
	switch {
	case p.gone || p.runs() || !p.node.up:
		return
	case p.node.paused:
		p.node.whenUnpaused(p.start)
		return
	}
	p.starts++
	name := fmt.Sprintf("%s#%d", p.name, p.starts)
	c := p.w.newClient(p.w.NewProcess(), name, p.node)
	c.Allowed, c.Waits = p.allowed, true
	p.client, p.began, p.frozen = c, p.w.Now(), false
	if p.node.frozen {
		c.Process.Freeze()
	}
	p.w.Note(name, "agent after starts")
	config := after.Config{
		API: c, Conditions: p.conditions, PodName: p.name, PodUID: "uid-of-" + p.name, Log: p,
		Random: rand.NewPCG(p.w.Seed, p.w.Source(name).Uint64()),
	}
	p.w.Group.Go(func() {
		err := after.Run(c.Ctx, config)
		p.w.Do(func() { p.exited(c, err) })
	})
}

// allowed returns nil, or the error with which the API server refuses a request for a
// Lease.
func (p *waiter) allowed(verb, lease string) error {
	if !p.w.api.Granted(ReaderRoleName, verb, lease) {
		return apiserver.Status(403, "Forbidden", verb+" "+lease)
	}
	return nil
}

// Write adds a line of the process to the history.
func (p *waiter) Write(line []byte) (int, error) {
	p.w.Do(func() { p.w.Note(p.name, "%s", strings.TrimSpace(string(line))) })
	return len(line), nil
}

// exited handles the end of a process that has ended by itself. After an error, the kubelet starts
// the container again. After a success the pod goes on, so exited checks that its conditions were
// met.
func (p *waiter) exited(c *apiserver.Client, err error) {
	if c.Dead {
		return
	}
	p.w.Note(p.name, "agent after exits: %v", err)
	c.Die()
	if err != nil {
		p.again()
		return
	}
	p.w.checkMet(p.name, p.conditions, p.began)
	p.gone = true
	p.succeeded(p)
}

// mostAgain bounds the back-off of the container.
const mostAgain = 10 * time.Second

// again starts the container after its back-off.
func (p *waiter) again() { p.w.After(engine.Between(p.rng, 200*time.Millisecond, mostAgain), p.start) }

// kill ends the process, and the kubelet starts the container again.
func (p *waiter) kill() {
	p.crash()
	p.again()
}

// delete ends the process for good. The method waiters.remove deletes the pod's object.
func (p *waiter) delete() {
	p.crash()
	p.gone = true
}

// pauseAlone freezes the process for the given time, but not its node.
func (p *waiter) pauseAlone(last time.Duration) {
	p.frozen = true
	p.freeze()
	p.w.Note(p.name, "agent after is frozen for %v", last)
	c := p.client
	p.w.After(last, func() {
		if p.client == c {
			p.resume()
		}
	})
}

// resume undoes pauseAlone.
func (p *waiter) resume() {
	p.frozen = false
	if !p.node.frozen {
		p.thaw()
	}
}

// freeze implements tenant.
func (p *waiter) freeze() {
	if p.runs() {
		p.client.Process.Freeze()
	}
}

// thaw implements tenant.
func (p *waiter) thaw() {
	if p.runs() && !p.frozen {
		p.client.Process.Thaw()
	}
}

// crash implements tenant.
func (p *waiter) crash() {
	if p.runs() {
		p.client.Die()
		p.w.Note(p.name, "agent after is dead")
	}
}

// leapt implements tenant. The method does nothing, because the code of agent/after reads no clock.
func (p *waiter) leapt() {}

// boot implements tenant.
func (p *waiter) boot() {
	p.w.After(engine.Between(p.rng, 500*time.Millisecond, 3*time.Second), p.start)
}
