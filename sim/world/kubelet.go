// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package world

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/agent"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/sim/apiserver"
	"github.com/metaparticle-io/metaparticle/sim/engine"
)

// pod is one pod on its node.
type pod struct {
	template
	order      inOrder
	sockets    sockets
	shown      shown
	volume     volume
	grant      gate.Grant // the last grant that a gate without shims took
	w          *World
	name, uid  string
	node       *node
	rng        *rand.Rand
	containers []*container
	agents     []*agentProcess
	lock       *agentProcess // the process that has the flock
	notes      map[string][]byte
	agentRuns  int
	// course is the pod's decision to run or to skip. The field "ran" reports that a child has
	// begun in the pod. The field "skips" reports that a shim has ended with success without a
	// child.
	course     agent.Course
	job        string // the Job of the pod, in the story of Jobs; empty otherwise
	key        string // the key of the pod's once claim, or the run of a pod with shards
	ran, skips bool
	// orphaned reports that a person has deleted the pod's Job, and not the pod.
	orphaned bool
	// stopping reports that the kubelet ends the pod. The field "object" reports that the API
	// server has the pod. The field "gone" reports that the pod has no process left.
	stopping, object, gone bool
}

// container is a gated container, with its shims or its application.
type container struct {
	pod    *pod
	name   string
	shims  []*shimProcess // the last shim is the current one
	starts int
	// app is the application's process in a pod of the gate "pod"; nil if no such process lives.
	app *child
	// failures counts the restarts since the last recovery, for the back-off. The field "pending"
	// reports that a start is planned.
	failures int
	pending  bool
	// init reports that the container is an init container. The field "done" reports that the init
	// container, or the container of a pod that ends, has succeeded.
	init, done bool
	prepared   string        // the hold under which the init container succeeded
	since      time.Duration // the instant at which the init container succeeded
}

func (w *World) newPod(t template, n *node) *pod {
	serial := w.Number()
	p := &pod{template: t, w: w, name: t.stable, uid: fmt.Sprintf("pod-uid-%d", serial), node: n, key: t.run, notes: map[string][]byte{}}
	if t.stable == "" {
		p.name = fmt.Sprintf("%s-%d", t.workload, serial)
	}
	p.rng = w.Source(p.name + p.uid)
	p.order.pod, p.sockets.pod, p.shown.pod, p.volume = p, p, p, volume{}
	if p.gate != api.GateContainer {
		p.inits = nil // only shims gate init containers
	}
	for _, name := range p.inits {
		p.containers = append(p.containers, &container{pod: p, name: name, init: true})
	}
	for _, name := range t.containers {
		p.containers = append(p.containers, &container{pod: p, name: name})
	}
	if p.shards > 0 {
		w.checks.sharded[p.identity()] = p
	}
	p.register()
	w.pods = append(w.pods, p)
	w.Note(p.name, "pod %s on %s (clock %.3f, lease %v), slots %v", p.uid, n.name, n.Rate, p.duration, p.slots)
	w.After(engine.Between(p.rng, 10*time.Millisecond, time.Second), p.startAll)
	return p
}

func (p *pod) identity() string { return api.Identity(p.name, p.uid) }

// leaseOf returns the Lease of the pod's first slot; nil if there is none.
func leaseOf(p *pod) *kube.Lease {
	l, _ := p.w.api.Lease(p.slots[0])
	return l
}

// startAll starts the processes that the pod lacks, in the order of the kubelet.
func (p *pod) startAll() {
	if p.gone || p.stopping || !p.node.up {
		return
	}
	if p.node.paused {
		p.node.whenUnpaused(p.startAll)
		return
	}
	if p.gate == api.GatePod {
		p.order.next()
		return
	}
	if p.agent() == nil {
		p.startAgent()
	}
	if p.gate == api.GateReadiness || p.behaviour.imageless {
		return // with the gate "readiness" no container has a shim, and without an image no shim starts
	}
	for _, c := range p.containers {
		if c.done {
			continue
		}
		if !c.known() && !c.pending {
			c.startShim()
		}
		if c.init {
			return // later containers wait
		}
	}
}

// known reports whether the kubelet knows of a shim of the container.
func (c *container) known() bool {
	return slices.ContainsFunc(c.shims, func(s *shimProcess) bool { return !s.forgotten })
}

// ready reports whether the container runs, and passes its readiness probe. Without a
// child every probe passes.
func (c *container) ready() bool {
	if len(c.shims) == 0 {
		return false
	}
	s := c.shims[len(c.shims)-1]
	return !s.dead && (s.child == nil || c.pod.behaviour.serves(c.pod.w.Now()-s.child.began))
}

// complete notes the success of an init container. The next container starts once its image is
// there. If [finished] returns true for the pod, the pod is stopped instead.
func (c *container) complete(s *shimProcess) {
	c.done, c.prepared, c.since = true, s.hold, c.pod.w.Now()
	next := c.pod.startAll
	if finished(c.pod) {
		next = c.pod.stop
	}
	c.pod.w.After(engine.Between(c.pod.rng, 10*time.Millisecond, time.Second), next)
}

// finished reports whether the pod is one that ends, and each of its containers has succeeded. In
// the template of a pod that ends, the field "ends" is not zero.
func finished(p *pod) bool {
	return p.ends > 0 && !slices.ContainsFunc(p.containers, func(c *container) bool { return !c.done })
}

// register stores the pod's object in the API server, for enroll.
func (p *pod) register() {
	p.object = true
	p.w.api.Object("Pod", p.name)
	body := map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{
			"name": p.name, "namespace": Namespace, "creationTimestamp": time.Now().UTC().Format(time.RFC3339), "labels": map[string]any{api.GatedLabel: api.Gated},
			"annotations": map[string]any{
				api.SlotsAnnotation: strings.Join(p.claimed(), ","), api.LeaseDurationAnnotation: p.duration.String(),
			},
		},
		"spec": p.spec(), "status": map[string]any{"phase": "Running"},
	}
	if p.run != "" && !p.orphaned {
		apiserver.Metadata(body)["ownerReferences"] = []any{map[string]any{
			"apiVersion": "batch/v1", "kind": "Job", "name": p.workload, "uid": p.run, "controller": true,
		}}
	}
	_, err := p.w.api.Put("kubelet", "Pod", p.name, apiserver.Encode(body))
	if err != nil {
		_, err = p.w.api.Create("kubelet", "Pod", p.name, apiserver.Encode(body))
	}
	engine.Must(err)
}

// spec returns the pod spec that the webhook makes for the gate, reduced to the fields
// that enroll reads.
func (p *pod) spec() map[string]any {
	agent := map[string]any{"name": api.AgentContainer, "restartPolicy": "Always", "args": []string{api.RunRole, "-gate=" + string(p.gate)}}
	inits := []any{agent}
	app := map[string]any{"name": "app", "command": []string{"serve"}}
	spec := map[string]any{"serviceAccountName": account, "nodeName": p.node.name}
	switch p.gate {
	case api.GatePod:
		inits = append(inits, map[string]any{"name": api.WaitContainer, "command": []string{api.AgentBinary, "wait"}})
	case api.GateReadiness:
		spec["readinessGates"] = []any{map[string]any{"conditionType": api.ReadyCondition}}
	default:
		app["command"] = []string{api.AgentBinary, "exec"}
	}
	spec["initContainers"], spec["containers"] = inits, []any{app}
	return spec
}

// unregister removes the pod's object, unless a later pod already has the same name.
func (p *pod) unregister() {
	if !p.object {
		return
	}
	p.object = false
	if !slices.ContainsFunc(p.w.pods, func(other *pod) bool { return other != p && other.object && other.name == p.name }) {
		engine.Must(p.w.api.Remove("kubelet", "Pod", p.name, "", ""))
	}
	p.shown.setReady(false)
}

// agent returns the agent process that has the flock; nil if no process has the flock.
func (p *pod) agent() *agentProcess {
	if p.lock != nil && !p.lock.Process.Dead {
		return p.lock
	}
	return nil
}

// listening returns the agent process to which shims can connect.
func (p *pod) listening() *agentProcess {
	if a := p.agent(); a != nil && a.gateway != nil {
		return a
	}
	return nil
}

// allowed returns nil, or the error with which the API server refuses the pod's request
// for a Lease.
func (p *pod) allowed(verb, lease string) error {
	if !p.object {
		return apiserver.Status(401, "Unauthorized", "the token's pod is gone")
	}
	if !p.w.api.Granted(RoleName, verb, lease) {
		return apiserver.Status(403, "Forbidden", verb+" "+lease)
	}
	return nil
}

// shimGone removes a dead shim from its container. If the shim was the current one, the kubelet
// restarts the container. After the success of an init container, the kubelet starts the next
// container instead. A pod that ends is stopped once all its containers have succeeded.
func (c *container) shimGone(s *shimProcess) {
	current := len(c.shims) > 0 && c.shims[len(c.shims)-1] == s
	c.shims = slices.DeleteFunc(c.shims, func(other *shimProcess) bool { return other == s })
	p := c.pod
	if p.stopping || p.gone {
		p.tidy()
		return
	}
	switch {
	case !current || !p.node.up || c.done:
	case c.init && s.ended && s.code == 0:
		c.complete(s)
	case p.ends > 0 && s.ended && s.code == 0:
		c.done = true
		if finished(p) {
			p.stop()
		}
	default:
		c.restart()
	}
}

// mostBackOff is the longest back-off in the world. A real kubelet waits up to five
// minutes.
const mostBackOff = 40 * time.Second

// restart starts the container anew after its back-off.
func (c *container) restart() {
	c.pending = true
	p := c.pod
	pause := engine.Between(p.rng, 300*time.Millisecond, time.Second)
	if c.failures > 0 {
		pause += min(mostBackOff, 10*time.Second<<min(c.failures-1, 5))
	}
	c.failures++
	n := c.starts
	again := func() {
		c.pending = false
		switch {
		case c.starts != n || p.stopping || p.gone || !p.node.up:
		case p.gate == api.GatePod:
			p.startAll()
		case !c.known():
			c.startShim()
		}
	}
	p.w.After(pause, func() { p.node.whenUnpaused(again) })
}

// stop ends a pod as the kubelet does: SIGTERM, the grace, SIGKILL. The kubelet stops
// the agent, a sidecar, after the other containers have ended or the grace is over.
func (p *pod) stop() {
	if p.node.paused {
		p.node.whenUnpaused(p.stop)
		return
	}
	if p.stopping {
		return
	}
	p.stopping = true
	p.shown.end()
	p.w.Note(p.name, "pod is being stopped, grace %v", p.grace)
	for _, c := range p.containers {
		for _, s := range c.shims {
			s.terminate()
		}
		if c.app != nil {
			c.app.terminate()
		}
	}
	p.order.endWait()
	p.w.After(p.grace, func() {
		p.node.whenUnpaused(func() {
			for _, c := range p.containers {
				for _, s := range slices.Clone(c.shims) {
					s.exit()
				}
				if c.app != nil {
					c.app.killed()
				}
			}
			p.stopAgents()
		})
	})
	p.tidy()
}

// left is the time that the kubelet gives a sidecar after the end of the grace.
const left = 2 * time.Second

// stopAgents sends SIGTERM to the agents. After two seconds ([left]) stopAgents kills the
// agents that still run.
func (p *pod) stopAgents() {
	for _, a := range p.agents {
		a.terminate()
	}
	p.w.After(left, func() {
		p.node.whenUnpaused(func() {
			for _, a := range slices.Clone(p.agents) {
				a.kill()
			}
		})
	})
}

// tidy goes on with the stop of a pod after one of the pod's processes has ended.
func (p *pod) tidy() {
	if !p.stopping || p.gone {
		return
	}
	for _, c := range p.containers {
		if len(c.shims) > 0 || c.app != nil {
			return
		}
	}
	if len(p.agents) > 0 {
		for _, a := range p.agents {
			if !a.stopped {
				a.terminate()
			}
		}
		return
	}
	p.gone = true
	p.w.Note(p.name, "pod is gone")
	p.unregister()
	p.w.pods = slices.DeleteFunc(p.w.pods, func(other *pod) bool { return other == p })
}
