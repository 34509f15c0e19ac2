// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

// hook is one hook of a container, with its field's name and the shim's argument.
type hook struct {
	field   string
	handler *corev1.LifecycleHandler
	told    func(*api.ExecArgs) **api.Handler
}

func hooksOf(c corev1.Container) []hook {
	var l corev1.Lifecycle
	if c.Lifecycle != nil {
		l = *c.Lifecycle
	}
	return []hook{
		{"postStart", l.PostStart, func(e *api.ExecArgs) **api.Handler { return &e.PostStart }},
		{"preStop", l.PreStop, func(e *api.ExecArgs) **api.Handler { return &e.PreStop }},
	}
}

// carryHooks tells the shim of the container's hooks. Those that it was told
// before count until another injector adds a new one: the pod's own are not in the
// container's spec any more.
func carryHooks(exec *api.ExecArgs, pod *corev1.Pod, c corev1.Container, before api.ExecArgs) {
	for _, h := range hooksOf(c) {
		*h.told(exec) = *h.told(&before)
		if h.handler != nil {
			// What cannot be carried over was refused.
			to, _ := carryHook(pod, c, h.handler)
			*h.told(exec) = &to
		}
	}
	if exec.PostStart == nil && exec.PreStop == nil {
		return
	}
	seconds := int64(corev1.DefaultTerminationGracePeriodSeconds)
	if own := pod.Spec.TerminationGracePeriodSeconds; own != nil {
		seconds = min(max(*own, 0), mostGrace)
	}
	exec.Grace = time.Duration(seconds) * time.Second
}

// mostGrace bounds a grace, in seconds, to what a duration has room for.
const mostGrace = 1 << 30

// carryHook is what the agent is told to do, or what is wrong with the hook:
// what the API server would have refused, had it seen it, or what cannot be
// carried over.
func carryHook(pod *corev1.Pod, c corev1.Container, from *corev1.LifecycleHandler) (to api.Handler, problem string) {
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
		to.HTTPGet, problem = carryGet(pod, c, from.HTTPGet)
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

// judgeHooks refuses the hooks that cannot be carried over.
func judgeHooks(text []byte, pod *corev1.Pod, gated []int, refusals *Refusals) {
	d := document{root: node{text: text}}
	for _, i := range gated {
		c := pod.Spec.Containers[i]
		for _, h := range hooksOf(c) {
			if h.handler == nil {
				continue
			}
			_, problem := carryHook(pod, c, h.handler)
			if problem == "" {
				hook, _ := d.get("spec", "containers", i, "lifecycle", h.field).(map[string]any)
				if field := lostOfHook(hook); field != "" {
					problem = fmt.Sprintf("with the field %s, which this version does not know", field)
				}
			}
			if problem != "" {
				refusals.add(Hooks, "container %q has a %s hook %s", c.Name, h.field, problem)
			}
		}
	}
}

// hookFields are what the actions of a hook have that this version knows.
var hookFields = map[string][]string{
	"exec":      execFields,
	"httpGet":   httpGetFields,
	"tcpSocket": tcpSocketFields,
	"sleep":     {"seconds"},
}

// lostOfHook is a field that would be lost. One that is null is not there.
func lostOfHook(hook map[string]any) string {
	for _, action := range sortedKeys(hook) {
		known, ok := hookFields[action]
		switch field := unknownField(hook[action], known); {
		case hook[action] == nil:
		case !ok:
			return action
		case field != "":
			return action + "." + field
		}
	}
	return ""
}

// takeHooks takes from the kubelet what the shim does instead.
func takeHooks(d *document, at []any) {
	d.remove(append(slices.Clone(at), "postStart")...)
	d.remove(append(slices.Clone(at), "preStop")...)
	if left, ok := d.get(at...).(map[string]any); ok && len(left) == 0 {
		d.remove(at...)
	}
}
