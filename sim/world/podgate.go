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
	"github.com/metaparticle-io/metaparticle/agent/podgate"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// inOrder starts a pod of the gate "pod" as the kubelet does: "agent turn", the agent,
// "agent wait", and then the application.
type inOrder struct {
	pod *Pod
	// turned and waited report that "agent turn" and "agent wait" have succeeded since the
	// containers were last restarted.
	turned, waited bool
	// restarting reports that the kubelet is about to restart all containers.
	restarting bool
	Waiter     *engine.Process // the process that runs "agent wait"
	// unwatched is the hold whose application is excused from the deadline, because the agent or
	// the kubelet could not enforce that deadline.
	unwatched string
}

// podGate is the real gate [podgate.Pod], and also notes each grant in the simulated pod.
type podGate struct {
	*podgate.Pod
	a *AgentProcess
}

// Grant implements agent.Gate.
func (g podGate) Grant(id gate.ShimID, grant gate.Grant) error {
	err := g.Pod.Grant(id, grant)
	if err == nil {
		g.a.Pod.w.Do(func() { g.a.Pod.granted(grant) })
	}
	return err
}

// runPod runs the agent's process in a pod of the gate "pod".
func (a *AgentProcess) runPod(config agent.Config) error {
	g, err := podgate.OpenPod(a.Process.Ctx, podgate.PodConfig{Machine: agentMachine{a}, OwnKernel: a.Pod.w.OwnKernel})
	if err != nil {
		return err
	}
	config.Gate, config.KubeletStops = podGate{g, a}, true
	return a.serve(config, func(ctx context.Context) error { return g.Run(ctx, a.stop) })
}

// granted notes a grant: the hold under which the application may start, and the deadline.
func (p *Pod) granted(g gate.Grant) {
	for _, c := range p.Containers {
		p.w.Checks.checkExtended(c.App, slotTokens(&g))
	}
	p.grant = g
	if p.Gate == api.GatePod {
		p.Order.enforce(g)
	}
}

// enforce follows the deadline of a grant, and excuses the application if the agent or the
// kubelet cannot enforce that deadline.
func (o *inOrder) enforce(g gate.Grant) {
	p := o.pod
	latest := func() bool { return p.grant.Hold == g.Hold && p.grant.Deadline == g.Deadline }
	p.Node.Ring(g.Deadline-g.Kill-g.Drain, func() {
		if latest() && !o.restarting && !p.watched() {
			o.excuse("no agent watches the deadline")
		}
	})
	p.Node.Ring(g.Deadline-g.Kill, func() {
		if latest() && (p.Node.frozen || p.Stopping) {
			o.excuse("the kubelet restarts nothing")
		}
	})
}

// watched reports whether the agent process is able to end itself at the deadline.
func (p *Pod) watched() bool {
	a := p.Agent()
	return a != nil && !a.Process.Frozen() && !p.Node.frozen && !p.Stopping
}

// excuse exempts the application from the deadline, because the agent or the kubelet cannot
// enforce the deadline. In a pod of the gate "pod" nothing else enforces a deadline.
func (o *inOrder) excuse(why string) {
	p := o.pod
	o.unwatched = p.grant.Hold
	for _, c := range p.Containers {
		if c.App != nil && !c.App.Excused {
			p.w.Note(p.Name, "%s is excused: %s", c.App.Name, why)
			c.App.Excused = true
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
		engine.Must(podgate.MoveNote(p.volume))
		p.w.Note(p.Name, "agent turn ends")
		o.Soon()
	case len(p.Agents) == 0:
		p.StartAgent()
		o.Soon()
	case !o.waited && o.Waiter == nil:
		o.startWait()
	case o.waited:
		for _, c := range p.Containers {
			if c.App == nil && !c.Pending {
				c.startApp()
			}
		}
	}
}

// Soon plans the next step of the pod's start.
func (o *inOrder) Soon() {
	p := o.pod
	p.w.After(engine.Between(p.rng, time.Millisecond, 300*time.Millisecond), p.startAll)
}

// startWait starts the process of "agent wait".
func (o *inOrder) startWait() {
	p := o.pod
	w := p.w
	proc := w.NewProcess()
	o.Waiter = proc
	if p.Node.frozen {
		proc.Freeze()
	}
	w.Note(p.Name, "agent wait starts")
	w.Group.Go(func() {
		err := podgate.Wait(proc.Ctx, p.sockets.dial(proc))
		w.Do(func() {
			if proc.Dead {
				return
			}
			w.Note(p.Name, "agent wait ends: %v", err)
			o.EndWait()
			o.waited = true
			o.Soon()
		})
	})
}

// EndWait ends the process of "agent wait".
func (o *inOrder) EndWait() {
	p := o.pod
	if o.Waiter != nil {
		o.Waiter.Die()
		p.sockets.hangUp(o.Waiter)
		o.Waiter = nil
	}
}

// restartAll kills all containers and starts them anew in their order. The kubelet does so after
// the agent has ended with the exit code for this restart. The kubelet restarts nothing in a pod
// that is being deleted.
func (o *inOrder) restartAll() {
	p := o.pod
	if p.Stopping {
		o.excuse("the kubelet restarts nothing in a pod that is being deleted")
		return
	}
	if o.restarting {
		return
	}
	o.restarting = true
	p.w.Note(p.Name, "all containers are to be restarted")
	p.w.After(engine.Between(p.rng, 50*time.Millisecond, MostKubelet), func() { p.Node.whenAwake(o.beginAnew) })
}

// MostKubelet is the longest time in which the simulated kubelet kills all containers. With the
// shortest lease duration, docs/guarantees.md gives a real kubelet 5 s. Skewed clocks may take
// about a second from these 5 s, so a kubelet that needs 1.5 s is always in time.
const MostKubelet = 1500 * time.Millisecond

// beginAnew kills all processes of the pod, and starts them anew, unless the pod is being deleted.
func (o *inOrder) beginAnew() {
	p := o.pod
	if p.Stopping {
		o.excuse("the kubelet restarts nothing in a pod that is being deleted")
	}
	if !o.restarting || p.Stopping || !p.Node.Up {
		o.restarting = false
		return
	}
	o.killAll()
	for _, a := range slices.Clone(p.Agents) {
		a.Kill()
	}
	o.Soon()
}

// killAll kills all processes of the pod except the agent. Then the pod starts again from its first
// process, "agent turn".
func (o *inOrder) killAll() {
	p := o.pod
	for _, c := range p.Containers {
		if c.App != nil {
			c.App.killed()
		}
		c.starts++ // cancels a planned start
		c.Pending = false
	}
	o.EndWait()
	o.turned, o.waited, o.restarting = false, false, false
}

// startApp starts the application's process in its container.
func (c *container) startApp() {
	p := c.pod
	c.starts++
	app := &Child{
		Container: c, where: fmt.Sprintf("%s/%s#%d", p.Name, c.name, c.starts), Name: fmt.Sprintf("child-%d", p.w.Number()),
		Hold: p.grant.Hold, Slots: slotTokens(&p.grant), Alive: true, Began: p.w.Now(), Stops: p.stops(p.rng),
	}
	app.Excused = app.Hold != "" && app.Hold == p.Order.unwatched
	c.App = app
	// The kubelet has ended the application of each earlier hold.
	maps.DeleteFunc(p.w.Checks.started, func(_ string, s start) bool { return s.pod == p && s.hold != app.Hold })
	for _, t := range app.Slots {
		p.w.Checks.started[Key(t.Slot, p.Identity(), app.Hold)] = start{pod: p, boot: p.Node.boot, hold: app.Hold}
	}
	p.w.Checks.childBegins(app)
	p.live(app)
}

// killed ends the application as the kubelet's SIGKILL does.
func (c *Child) killed() {
	if c.Container.App == c {
		c.Container.App = nil
	}
	c.dies()
}

// endsAlone ends an application that has no shim. The kubelet may restart its
// container.
func (c *Child) endsAlone(how string) {
	p := c.Pod()
	p.Node.whenAwake(func() {
		if !c.Alive || c.Container.App != c {
			return
		}
		p.w.Note(c.where, "%s %s", c.Name, how)
		c.killed()
		switch {
		case p.Stopping || p.Gone:
			p.tidy()
		case p.Order.waited && !p.Order.restarting && p.Node.Up:
			c.Container.restart()
		}
	})
}

// terminate sends the kubelet's SIGTERM to an application that has no shim.
func (c *Child) terminate() {
	if c.Asked = true; c.Stops >= 0 {
		c.Pod().w.After(c.Stops, func() { c.endsAlone("stops") })
	}
}
