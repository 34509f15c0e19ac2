// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/metaparticle-io/metaparticle/agent"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/standin"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// inOrder starts a pod of the gate "pod" as the kubelet does: "agent turn", the agent,
// "agent wait", and then the application.
type inOrder struct {
	pod *pod
	// turned and waited report that "agent turn" and "agent wait" have succeeded since the
	// containers were last restarted.
	turned, waited bool
	// restarting reports that the kubelet is about to restart all containers.
	restarting bool
	waiter     *engine.Process // the process that runs "agent wait"
	// unwatched is the hold whose application is excused from the deadline.
	unwatched string
}

// podGate is the real gate [standin.Pod], and also notes each grant in the world's pod.
type podGate struct {
	*standin.Pod
	a *agentProcess
}

// Grant implements agent.Gate.
func (g podGate) Grant(id gate.ShimID, grant gate.Grant) error {
	err := g.Pod.Grant(id, grant)
	if err == nil {
		g.a.pod.w.Do(func() { g.a.pod.granted(grant) })
	}
	return err
}

// runPod runs the agent's process in a pod of the gate "pod".
func (a *agentProcess) runPod(config agent.Config) error {
	g, err := standin.OpenPod(a.Process.Ctx, standin.PodConfig{Machine: agentMachine{a}})
	if err != nil {
		return err
	}
	config.Gate, config.KubeletStops = podGate{g, a}, true
	return a.serve(config, func(ctx context.Context) error { return g.Run(ctx, a.stop) })
}

// granted notes the hold under which the application may start, and its deadline.
func (p *pod) granted(g gate.Grant) {
	for _, c := range p.containers {
		p.w.checks.checkExtended(c.app, &g)
	}
	p.grant = g
	if p.gate == api.GatePod {
		p.order.enforce(g)
	}
}

// enforce follows the deadline of a grant, and excuses the application if the agent or the
// kubelet cannot enforce that deadline.
func (o *inOrder) enforce(g gate.Grant) {
	p := o.pod
	latest := func() bool { return p.grant.Hold == g.Hold && p.grant.Deadline == g.Deadline }
	p.node.Ring(g.Deadline-g.Kill-g.Drain, func() {
		if latest() && !o.restarting && !p.watched() {
			o.excuse("no agent watches the deadline")
		}
	})
	p.node.Ring(g.Deadline-g.Kill, func() {
		if latest() && (p.node.frozen || p.stopping) {
			o.excuse("the kubelet restarts nothing")
		}
	})
}

// watched reports whether the agent process is able to end itself at the deadline.
func (p *pod) watched() bool {
	a := p.agent()
	return a != nil && !a.Process.Frozen() && !p.node.frozen && !p.stopping
}

// excuse exempts the application from the deadline. In a pod of the gate "pod" only the
// agent and the kubelet enforce the deadline.
func (o *inOrder) excuse(why string) {
	p := o.pod
	o.unwatched = p.grant.Hold
	for _, c := range p.containers {
		if c.app != nil && !c.app.excused {
			p.w.Note(p.name, "%s is excused: %s", c.app.name, why)
			c.app.excused = true
		}
	}
}

// next does the next step of the pod's start, and plans the step after it.
func (o *inOrder) next() {
	p := o.pod
	switch {
	case o.restarting:
	case !o.turned:
		o.turned = true
		engine.Must(standin.Turn(p.volume))
		p.w.Note(p.name, "agent turn ends")
		o.soon()
	case len(p.agents) == 0:
		p.startAgent()
		o.soon()
	case !o.waited && o.waiter == nil:
		o.startWait()
	case o.waited:
		for _, c := range p.containers {
			if c.app == nil && !c.pending {
				c.startApp()
			}
		}
	}
}

// soon plans the next step of the pod's start.
func (o *inOrder) soon() {
	p := o.pod
	p.w.After(engine.Between(p.rng, time.Millisecond, 300*time.Millisecond), p.startAll)
}

// startWait starts the process of "agent wait".
func (o *inOrder) startWait() {
	p := o.pod
	w := p.w
	proc := w.NewProcess()
	o.waiter = proc
	if p.node.frozen {
		proc.Freeze()
	}
	w.Note(p.name, "agent wait starts")
	w.Group.Go(func() {
		err := standin.Wait(proc.Ctx, p.sockets.dial(proc))
		w.Do(func() {
			if proc.Dead {
				return
			}
			w.Note(p.name, "agent wait ends: %v", err)
			o.endWait()
			o.waited = true
			o.soon()
		})
	})
}

// endWait ends the process of "agent wait".
func (o *inOrder) endWait() {
	p := o.pod
	if o.waiter != nil {
		o.waiter.Die()
		p.sockets.hangUp(o.waiter)
		o.waiter = nil
	}
}

// restartAll kills all containers and starts them anew in their order. The kubelet does so after
// the exit code by which the agent asks for this restart. The kubelet restarts nothing in a pod
// that is being deleted.
func (o *inOrder) restartAll() {
	p := o.pod
	if p.stopping {
		o.excuse("the kubelet restarts nothing in a pod that is being deleted")
		return
	}
	if o.restarting {
		return
	}
	o.restarting = true
	p.w.Note(p.name, "all containers are to be restarted")
	p.w.After(engine.Between(p.rng, 50*time.Millisecond, mostKubelet), func() { p.node.whenAwake(o.beginAnew) })
}

// mostKubelet is the longest time in which the simulated kubelet kills all containers. With the
// shortest lease duration, docs/guarantees.md gives a real kubelet 5 s. Skewed clocks may take
// about a second from these 5 s, so a kubelet that needs 1.5 s is always in time.
const mostKubelet = 1500 * time.Millisecond

// beginAnew kills all processes of the pod, and starts them anew, unless the pod is being deleted.
func (o *inOrder) beginAnew() {
	p := o.pod
	if p.stopping {
		o.excuse("the kubelet restarts nothing in a pod that is being deleted")
	}
	if !o.restarting || p.stopping || !p.node.up {
		o.restarting = false
		return
	}
	o.killAll()
	for _, a := range slices.Clone(p.agents) {
		a.kill()
	}
	o.soon()
}

// killAll kills all processes but the agent. Then the pod starts again from its first process,
// "agent turn".
func (o *inOrder) killAll() {
	p := o.pod
	for _, c := range p.containers {
		if c.app != nil {
			c.app.killed()
		}
		c.starts++ // cancels a planned start
		c.pending = false
	}
	o.endWait()
	o.turned, o.waited, o.restarting = false, false, false
}

// startApp starts the application's process in its container.
func (c *container) startApp() {
	p := c.pod
	c.starts++
	app := &child{
		container: c, where: fmt.Sprintf("%s/%s#%d", p.name, c.name, c.starts), name: fmt.Sprintf("child-%d", p.w.Number()),
		hold: p.grant.Hold, slots: p.grant.Slots, alive: true, began: p.w.Now(), stops: p.stops(p.rng),
	}
	app.excused = app.hold != "" && app.hold == p.order.unwatched
	c.app = app
	// The kubelet has ended the application of each earlier hold.
	maps.DeleteFunc(p.w.checks.started, func(_ string, s start) bool { return s.pod == p && s.hold != app.hold })
	for _, t := range app.slots {
		p.w.checks.started[key(t.Slot, p.identity(), app.hold)] = start{pod: p, boot: p.node.boot, hold: app.hold}
	}
	p.w.checks.childBegins(app)
	p.live(app)
}

// killed ends the application as the kubelet's SIGKILL does.
func (c *child) killed() {
	if c.container.app == c {
		c.container.app = nil
	}
	c.dies()
}

// endsAlone ends an application that has no shim. The kubelet may restart its
// container.
func (c *child) endsAlone(how string) {
	p := c.pod()
	p.node.whenAwake(func() {
		if !c.alive || c.container.app != c {
			return
		}
		p.w.Note(c.where, "%s %s", c.name, how)
		c.killed()
		switch {
		case p.stopping || p.gone:
			p.tidy()
		case p.order.waited && !p.order.restarting && p.node.up:
			c.container.restart()
		}
	})
}

// terminate sends the kubelet's SIGTERM to an application that has no shim.
func (c *child) terminate() {
	if c.asked = true; c.stops >= 0 {
		c.pod().w.After(c.stops, func() { c.endsAlone("stops") })
	}
}
