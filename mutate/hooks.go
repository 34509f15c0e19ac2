// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

// The flags of the agent's exec role that carry the hooks; cmd/agent owns them.
const (
	postStartFlag = "-post-start="
	preStopFlag   = "-pre-stop="
	graceFlag     = "-grace="
)

// hook is one hook of a container, with its field's name and the shim's flag.
type hook struct {
	field, flag string
	handler     *corev1.LifecycleHandler
}

func hooksOf(c corev1.Container) []hook {
	var l corev1.Lifecycle
	if c.Lifecycle != nil {
		l = *c.Lifecycle
	}
	return []hook{{"postStart", postStartFlag, l.PostStart}, {"preStop", preStopFlag, l.PreStop}}
}

// hookFlags are what the shim of a container is told of its hooks. Those that
// it was told before count until another injector adds a new one: the pod's
// own are not in the container's spec any more.
func hookFlags(pod *corev1.Pod, c corev1.Container, before []string) []string {
	var flags []string
	for _, h := range hooksOf(c) {
		if h.handler != nil {
			flags = append(flags, h.flag+literal([]string{handlerText(pod, c, h.handler)})[0])
		} else if told := flagOf(before, h.flag); told != "" {
			flags = append(flags, h.flag+told)
		}
	}
	if len(flags) == 0 {
		return nil
	}
	seconds := int64(corev1.DefaultTerminationGracePeriodSeconds)
	if own := pod.Spec.TerminationGracePeriodSeconds; own != nil {
		seconds = min(max(*own, 0), mostGrace)
	}
	return append(flags, graceFlag+(time.Duration(seconds)*time.Second).String())
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

// handlerText is what the agent reads. What cannot be carried over was refused.
func handlerText(pod *corev1.Pod, c corev1.Container, from *corev1.LifecycleHandler) string {
	to, _ := carryHook(pod, c, from)
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false) // it is for people's eyes, too
	_ = encoder.Encode(to)       // strings and numbers
	return strings.TrimSpace(text.String())
}

// judgeHooks refuses the hooks that cannot be carried over.
func judgeHooks(raw []byte, pod *corev1.Pod, gated []int) Refusals {
	if !slices.ContainsFunc(gated, func(i int) bool { return pod.Spec.Containers[i].Lifecycle != nil }) {
		return nil
	}
	var refusals Refusals
	var sent struct {
		Spec struct {
			Containers []struct {
				Lifecycle map[string]json.RawMessage `json:"lifecycle"`
			} `json:"containers"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(raw, &sent); err != nil {
		refusals.add(Hooks, "the pod's hooks cannot be read: %v", err)
		return refusals
	}
	for _, i := range gated {
		c := pod.Spec.Containers[i]
		for _, h := range hooksOf(c) {
			if h.handler == nil {
				continue
			}
			_, problem := carryHook(pod, c, h.handler)
			if problem == "" {
				problem = unknownField(sent.Spec.Containers[i].Lifecycle[h.field])
			}
			if problem != "" {
				refusals.add(Hooks, "container %q has a %s hook %s", c.Name, h.field, problem)
			}
		}
	}
	return refusals
}

// handledFields are what the hooks of this version have.
var handledFields = map[string][]string{
	"":          {"exec", "httpGet", "tcpSocket", "sleep"},
	"exec":      {"command"},
	"httpGet":   {"path", "port", "host", "scheme", "httpHeaders", "protocol"},
	"tcpSocket": {"port", "host"},
	"sleep":     {"seconds"},
}

// unknownField finds what would be lost. A field that is null is not there.
func unknownField(raw json.RawMessage) string {
	var hook map[string]map[string]any
	if err := json.Unmarshal(raw, &hook); err != nil {
		return fmt.Sprintf("that cannot be read: %v", err)
	}
	for _, action := range slices.Sorted(maps.Keys(hook)) {
		if !slices.Contains(handledFields[""], action) && hook[action] != nil {
			return fmt.Sprintf("with the field %s, which this version does not know", action)
		}
		for _, field := range sortedKeys(hook[action]) {
			if !slices.Contains(handledFields[action], field) && hook[action][field] != nil {
				return fmt.Sprintf("with the field %s.%s, which this version does not know", action, field)
			}
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
