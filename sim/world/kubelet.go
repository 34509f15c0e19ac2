// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/agent"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// Pod is one pod on its node.
type Pod struct {
	Template
	// Order starts the containers of a pod of the gate "pod" one after the other.
	Order   inOrder
	sockets sockets
	// Shown is the pod as the API server has stored it.
	Shown  shown
	volume volume
	grant  gate.Grant // the last grant that a gate without shims took
	w      *World
	// Name is the name of the pod, and Node its machine.
	Name, uid string
	Node      *Node
	rng       *rand.Rand
	// Containers are the gated containers. The field Agents has the processes of the agent.
	Containers         []*container
	Agents             []*AgentProcess
	lock               *AgentProcess // the process that has the flock
	notes              map[string][]byte
	agentRuns, earlier int // agent processes, and those of them that had another volume
	// contact is the address at which the agent answers pods that it supports; the zero value for none.
	contact netip.AddrPort
	heir    *Pod     // the pod's processes on the machine that has replaced the node; nil for none
	boots   []string // the boot ids in the notes of the pod's volume
	// Full reports that no note can be written. Unforkable reports that no child starts. Clogged
	// reports that the sockets between the agent and the shims take no message.
	Full, Unforkable, Clogged bool
	// course is the pod's decision to run or to skip. The field "ran" reports that a child has
	// begun in the pod. The field "skips" reports that a shim has ended with success without a
	// child.
	course     agent.Course
	Job        string // the Job of the pod, in the story of Jobs; empty otherwise
	Key        string // the key of the pod's once claim, or the run of a pod with shards
	ran, skips bool
	// Orphaned reports that a person has deleted the pod's Job, and not the pod.
	Orphaned bool
	// Stopping reports that the kubelet ends the pod. The field Object reports that the API
	// server has the pod. The field Gone reports that the pod has no process left.
	Stopping, Object, Gone bool
}

// container is a gated container, with its shims or its application.
type container struct {
	pod    *Pod
	name   string
	Shims  []*ShimProcess // the last shim is the current one
	starts int
	// App is the application's process in a pod of the gate "pod"; nil if no such process lives.
	App *Child
	// Failures counts the restarts since the last recovery, for the back-off. The field Pending
	// reports that a start is planned.
	Failures int
	Pending  bool
	// Init reports that the container is an init container. The field "done" reports that the
	// container has succeeded. Only init containers, and the containers of a pod whose template
	// sets Ends, can be done.
	Init, done bool
	Prepared   string        // the hold under which the init container succeeded
	Since      time.Duration // the instant at which the init container succeeded
}

// NewPod makes a pod on the node, whose kubelet soon starts the containers.
func (w *World) NewPod(t Template, n *Node) *Pod {
	serial := w.Number()
	name, uid := t.Stable, fmt.Sprintf("pod-uid-%d", serial)
	if t.Stable == "" {
		name = fmt.Sprintf("%s-%d", t.Workload, serial)
	}
	n = present(n)
	p := &Pod{Template: t, w: w, Name: name, uid: uid, Node: n, rng: w.Source(name + uid), Key: t.Run}
	furnish(p)
	p.plug()
	p.Register()
	w.Pods = append(w.Pods, p)
	w.Note(p.Name, "pod %s on %s (clock %.3f, lease %v), slots %v", p.uid, n.Name, n.Rate, p.LeaseDuration, p.Slots)
	w.After(engine.Between(p.rng, 10*time.Millisecond, time.Second), p.startAll)
	return p
}

// furnish makes the parts of a pod without a process: its volume and its containers.
func furnish(p *Pod) {
	p.Order.pod, p.sockets.pod, p.Shown.pod, p.volume, p.notes = p, p, p, volume{}, map[string][]byte{}
	if p.Gate != api.GateContainer {
		p.Inits = nil // only shims gate init containers
	}
	for i, name := range slices.Concat(p.Inits, p.Template.Containers) {
		p.Containers = append(p.Containers, &container{pod: p, name: name, Init: i < len(p.Inits)})
	}
	if p.Shards > 0 {
		p.w.Checks.sharded[p.Identity()] = p
	}
}

// startAll starts the processes that the pod lacks, in the order of the kubelet.
func (p *Pod) startAll() {
	if p.Gone || p.Stopping || !p.Node.Up {
		return
	}
	if p.Node.Paused {
		p.Node.whenUnpaused(p.startAll)
		return
	}
	if p.Gate == api.GatePod {
		p.Order.next()
		return
	}
	if p.Agent() == nil {
		p.StartAgent()
	}
	if p.Gate == api.GateReadiness || p.Behaviour.Imageless {
		return // with the gate "readiness" no container has a shim, and without an image no shim starts
	}
	for _, c := range p.Containers {
		if c.done {
			continue
		}
		if !c.known() && !c.Pending {
			c.StartShim()
		}
		if c.Init {
			return // later containers wait
		}
	}
}

// known reports whether the kubelet knows of a shim of the container.
func (c *container) known() bool {
	return slices.ContainsFunc(c.Shims, func(s *ShimProcess) bool { return !s.Forgotten })
}

// ready reports whether the container runs, and passes its readiness probe. Without a
// child every probe passes.
func (c *container) ready() bool {
	if len(c.Shims) == 0 {
		return false
	}
	s := c.Shims[len(c.Shims)-1]
	return !s.Dead && (s.Child == nil || s.Child.Serves())
}

// complete notes the success of an init container. The next container starts once its image is
// there. If [finished] returns true for the pod, the pod is stopped instead.
func (c *container) complete(s *ShimProcess) {
	c.done, c.Prepared, c.Since = true, s.hold, c.pod.w.Now()
	next := c.pod.startAll
	if finished(c.pod) {
		next = c.pod.Stop
	}
	c.pod.w.After(engine.Between(c.pod.rng, 10*time.Millisecond, time.Second), next)
}

// finished reports whether the pod's template sets Ends, and each container of the pod has
// succeeded.
func finished(p *Pod) bool {
	return p.Ends > 0 && !slices.ContainsFunc(p.Containers, func(c *container) bool { return !c.done })
}

// Register stores the pod's object in the API server, for enroll.
func (p *Pod) Register() {
	p.Object = true
	p.w.API.Object("Pod", p.Name)
	body := map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{
			"name": p.Name, "namespace": Namespace, "creationTimestamp": time.Now().UTC().Format(time.RFC3339), "labels": map[string]any{api.GatedLabel: api.Gated},
			"annotations": map[string]any{
				api.SlotsAnnotation: strings.Join(p.claimed(), ","), api.LeaseDurationAnnotation: p.LeaseDuration.String(),
			},
		},
		"spec": p.spec(), "status": map[string]any{"phase": "Running"},
	}
	if p.Failsafe != (api.Failsafe{}) {
		apiserver.Metadata(body)["annotations"].(map[string]any)[api.FailsafeAnnotation] = p.Failsafe.String()
	}
	if p.Run != "" && !p.Orphaned {
		apiserver.Metadata(body)["ownerReferences"] = []any{map[string]any{
			"apiVersion": "batch/v1", "kind": "Job", "name": p.Workload, "uid": p.Run, "controller": true,
		}}
	}
	_, err := p.w.API.Put("kubelet", "Pod", p.Name, apiserver.Encode(body))
	if err != nil {
		_, err = p.w.API.Create("kubelet", "Pod", p.Name, apiserver.Encode(body))
	}
	engine.Must(err)
}

// spec returns the pod spec that the webhook makes for the gate, reduced to the fields
// that enroll reads.
func (p *Pod) spec() map[string]any {
	agent := map[string]any{"name": api.AgentContainer, "restartPolicy": "Always", "args": []string{api.RunRole, "-gate=" + string(p.Gate)}}
	inits := []any{agent}
	app := map[string]any{"name": "app", "command": []string{"serve"}}
	spec := map[string]any{"serviceAccountName": account, "nodeName": p.Node.Name}
	switch p.Gate {
	case api.GatePod:
		inits = append(inits, map[string]any{"name": api.WaitContainer, "command": []string{api.ShimProgram, "wait"}})
	case api.GateReadiness:
		spec["readinessGates"] = []any{map[string]any{"conditionType": api.ReadyCondition}}
	default:
		app["command"] = []string{api.ShimProgram, "exec"}
	}
	spec["initContainers"], spec["containers"] = inits, []any{app}
	return spec
}

// unregister removes the pod's object, unless a later pod already has the same name.
func (p *Pod) unregister() {
	if !p.Object {
		return
	}
	p.Object = false
	if !slices.ContainsFunc(p.w.Pods, func(other *Pod) bool { return other != p && other.Object && other.Name == p.Name }) {
		engine.Must(p.w.API.Remove("kubelet", "Pod", p.Name, "", ""))
	}
	p.Shown.setReady(false)
}

// Agent returns the agent process that has the flock; nil if no process has the flock.
func (p *Pod) Agent() *AgentProcess {
	if p.lock != nil && !p.lock.Process.Dead {
		return p.lock
	}
	return nil
}

// listening returns the agent process to which shims can connect.
func (p *Pod) listening() *AgentProcess {
	if a := p.Agent(); a != nil && a.gateway != nil {
		return a
	}
	return nil
}

// allowed returns nil, or the error with which the API server refuses the pod's request
// for a Lease.
func (p *Pod) allowed(verb, lease string) error {
	if !p.Object {
		return apiserver.Status(401, "Unauthorized", "the token's pod is gone")
	}
	return p.w.rightsOf(RoleName)(verb, lease)
}

// shimGone removes a dead shim from its container. If the shim was the current one, the kubelet
// restarts the container. After the success of an init container, the kubelet starts the next
// container instead. A pod whose template sets Ends is stopped once all containers of the pod have
// succeeded.
func (c *container) shimGone(s *ShimProcess) {
	current := len(c.Shims) > 0 && c.Shims[len(c.Shims)-1] == s
	c.Shims = slices.DeleteFunc(c.Shims, func(other *ShimProcess) bool { return other == s })
	p := c.pod
	if p.Stopping || p.Gone {
		p.tidy()
		return
	}
	switch {
	case !current || !p.Node.Up || c.done:
	case c.Init && s.ended && s.code == 0:
		c.complete(s)
	case p.Ends > 0 && s.ended && s.code == 0:
		c.done = true
		if finished(p) {
			p.Stop()
		}
	default:
		c.restart()
	}
}

// MostBackOff bounds the back-off of the simulated kubelet, apart from the second that each restart
// may take. A real kubelet waits up to five minutes.
const MostBackOff = 40 * time.Second

// restart starts the container anew after its back-off.
func (c *container) restart() {
	c.Pending = true
	p := c.pod
	pause := engine.Between(p.rng, 300*time.Millisecond, time.Second)
	if c.Failures > 0 {
		pause += min(MostBackOff, 10*time.Second<<min(c.Failures-1, 5))
	}
	c.Failures++
	n := c.starts
	again := func() {
		c.Pending = false
		switch {
		case c.starts != n || p.Stopping || p.Gone || !p.Node.Up || p.Behaviour.Imageless:
		case p.Gate == api.GatePod:
			p.startAll()
		case !c.known():
			c.StartShim()
		}
	}
	p.w.After(pause, func() { p.Node.whenUnpaused(again) })
}

// Stop ends a pod as the kubelet does: SIGTERM, the grace, SIGKILL. The kubelet stops
// the agent, a sidecar, after the other containers have ended or the grace is over.
func (p *Pod) Stop() {
	if p.Node.Paused {
		p.Node.whenUnpaused(p.Stop)
		return
	}
	if p.Stopping {
		return
	}
	p.Stopping = true
	p.Shown.end()
	p.w.Note(p.Name, "pod is being stopped, grace %v", p.Grace)
	for _, c := range p.Containers {
		for _, s := range c.Shims {
			s.terminate()
		}
		if c.App != nil {
			c.App.terminate()
		}
	}
	p.Order.EndWait()
	p.w.After(p.Grace, func() {
		p.Node.whenUnpaused(func() {
			for _, c := range p.Containers {
				for _, s := range slices.Clone(c.Shims) {
					s.Exit()
				}
				if c.App != nil {
					c.App.killed()
				}
			}
			p.stopAgents()
		})
	})
	p.tidy()
}

// Left is the time that the kubelet gives a sidecar after the end of the grace.
const Left = 2 * time.Second

// stopAgents sends SIGTERM to the agents. After two seconds ([Left]) stopAgents kills the
// agents that still run.
func (p *Pod) stopAgents() {
	for _, a := range p.Agents {
		a.Terminate()
	}
	p.w.After(Left, func() {
		p.Node.whenUnpaused(func() {
			for _, a := range slices.Clone(p.Agents) {
				a.Kill()
			}
		})
	})
}

// tidy goes on with the stop of a pod after one of the pod's processes has ended.
func (p *Pod) tidy() {
	if !p.Stopping || p.Gone {
		return
	}
	for _, c := range p.Containers {
		if len(c.Shims) > 0 || c.App != nil {
			return
		}
	}
	if len(p.Agents) > 0 {
		for _, a := range p.Agents {
			if !a.Stopped {
				a.Terminate()
			}
		}
		return
	}
	p.Gone = true
	p.w.Note(p.Name, "pod is gone")
	p.unregister()
	p.w.Pods = slices.DeleteFunc(p.w.Pods, func(other *Pod) bool { return other == p })
}
