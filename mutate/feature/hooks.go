// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/patch"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// maxGrace bounds a grace period, in seconds, so that the period fits into a [time.Duration].
const maxGrace = 1 << 30

// hook is one hook of a container, with the name of the hook's field, and with the argument of the
// shim for this hook.
type hook struct {
	field   string
	handler *corev1.LifecycleHandler
	arg     func(*api.ExecArgs) **api.Handler
}

// hooksOf returns the two hooks of a container, each with or without a handler.
func hooksOf(c *corev1.Container) []hook {
	var l corev1.Lifecycle
	if c.Lifecycle != nil {
		l = *c.Lifecycle
	}
	return []hook{
		{"postStart", l.PostStart, func(e *api.ExecArgs) **api.Handler { return &e.PostStart }},
		{"preStop", l.PreStop, func(e *api.ExecArgs) **api.Handler { return &e.PreStop }},
	}
}

// judgeHooks refuses a hook that the shim cannot run in the kubelet's stead.
func judgeHooks(p *Pod) reason.Refusals {
	var refusals reason.Refusals
	if !p.Request.Shims() {
		return nil
	}
	for _, i := range p.gated {
		c, at := &p.Spec.Containers[i], place{mainContainers, i}
		for _, h := range hooksOf(c) {
			if h.handler == nil {
				continue
			}
			_, problem := p.carryHook(c, h.handler)
			if problem == "" {
				raw, _ := p.field(at.path("lifecycle", h.field)...).(map[string]any)
				if field := lostOfHook(raw); field != "" {
					problem = fmt.Sprintf("with the field %s, which this version does not know", field)
				}
			}
			if problem != "" {
				refusals.Add(reason.Hooks, "container %q has a %s hook %s", c.Name, h.field, problem)
			}
		}
	}
	return refusals
}

// carryHook returns a hook in the shim's form, or the problem with the hook. The API server
// cannot find that problem, because patchHooks removes the hook before the API server
// validates the pod.
func (f Facts) carryHook(c *corev1.Container, from *corev1.LifecycleHandler) (to api.Handler, problem string) {
	actions := 0
	if from.Exec != nil {
		actions++
		to.Exec = &api.ExecAction{Command: from.Exec.Command}
		if len(from.Exec.Command) == 0 {
			problem = "without a command"
		}
	}
	if from.HTTPGet != nil {
		actions++
		to.HTTPGet, problem = f.carryGet(c, from.HTTPGet)
	}
	if from.TCPSocket != nil {
		actions++
		to.TCPSocket = &api.TCPSocketAction{Host: from.TCPSocket.Host}
		to.TCPSocket.Port, problem = portNumber(c, from.TCPSocket.Port)
	}
	if from.Sleep != nil {
		actions++
		to.Sleep = &api.SleepAction{Seconds: from.Sleep.Seconds}
		if from.Sleep.Seconds < 0 {
			problem = "that sleeps for less than nothing"
		}
	}
	switch actions {
	case 0:
		problem = "of no kind that this version knows"
	case 1:
	default:
		problem = "of more than one kind"
	}
	return to, problem
}

// carryHooks gives the shim the hooks of its container. If there is a hook, the shim also gets the
// grace period. The argument "before" has the hooks that an earlier pass has moved into the shim's
// arguments. A new hook in the container replaces the earlier hook of its kind.
func (p *Pod) carryHooks(exec *api.ExecArgs, c *corev1.Container, before api.ExecArgs) {
	for _, h := range hooksOf(c) {
		*h.arg(exec) = *h.arg(&before)
		if h.handler != nil {
			to, _ := p.carryHook(c, h.handler) // judgeHooks refuses each hook that has a problem
			*h.arg(exec) = &to
		}
	}
	if exec.PostStart == nil && exec.PreStop == nil {
		return
	}
	seconds := int64(corev1.DefaultTerminationGracePeriodSeconds)
	if own := p.Spec.TerminationGracePeriodSeconds; own != nil {
		seconds = min(max(*own, 0), maxGrace)
	}
	exec.Grace = time.Duration(seconds) * time.Second
}

// patchHooks removes the hooks of the gated containers, because the shim runs them. The
// hooks of an init container stay, so that the API server refuses them.
func patchHooks(p *Pod, d *patch.Document) {
	for _, s := range p.shims {
		if s.list != mainContainers || api.Leashed(p.Request) {
			continue
		}
		d.Remove(s.path("lifecycle", "postStart")...)
		d.Remove(s.path("lifecycle", "preStop")...)
		if left, ok := d.Get(s.path("lifecycle")...).(map[string]any); ok && len(left) == 0 {
			d.Remove(s.path("lifecycle")...)
		}
	}
}
