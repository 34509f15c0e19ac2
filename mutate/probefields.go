// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"cmp"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// What the actions that probes and hooks share have that this version knows.
var (
	execFields      = []string{"command"}
	httpGetFields   = []string{"path", "port", "host", "scheme", "httpHeaders", "protocol"}
	tcpSocketFields = []string{"port", "host"}
)

// probeFields are what the actions of a probe have that this version knows.
var probeFields = map[string][]string{
	"exec":      execFields,
	"httpGet":   httpGetFields,
	"tcpSocket": tcpSocketFields,
	"grpc":      {"port", "service", "mode"},
}

// timingFields are all else that a probe has.
var timingFields = []string{
	"initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold",
	"terminationGracePeriodSeconds",
}

// judgeProbeFields refuses what would be lost: whatever is not known of what a
// probe does, since the agent does it; and of a probe that is taken off the
// container, whatever is not known of it. What the kubelet goes on to drive
// keeps its other fields.
func judgeProbeFields(text []byte, pod *corev1.Pod, gated []int, refusals *Refusals) {
	d := document{root: node{text: text}}
	for _, i := range gated {
		c := pod.Spec.Containers[i]
		for _, kind := range kinds {
			if p := kind.in(&c); p == nil || actions(p) == 0 {
				continue // of no known kind, it is refused as a whole
			}
			probe, _ := d.get("spec", "containers", i, kind.field).(map[string]any)
			if field := lostOfProbe(probe, kind.takenOff()); field != "" {
				refusals.add(Probes, "container %q has a %s with the field %s, which this version does not know", c.Name, kind.field, field)
			}
		}
	}
}

// lostOfProbe is a field that would be lost: of all of the probe, or only of what
// the agent does in the kubelet's stead. One that is null is not there.
func lostOfProbe(probe map[string]any, all bool) string {
	for _, name := range sortedKeys(probe) {
		known, action := probeFields[name]
		if !action {
			if all && probe[name] != nil && !slices.Contains(timingFields, name) {
				return name
			}
			continue
		}
		if name == "exec" && !all {
			continue // the kubelet goes on to run it
		}
		if field := unknownField(probe[name], known); field != "" {
			return name + "." + field
		}
	}
	return ""
}

// unknownField is one that an action has beside the known ones.
func unknownField(action any, known []string) string {
	fields, _ := action.(map[string]any)
	for _, field := range sortedKeys(fields) {
		if fields[field] != nil && !slices.Contains(known, field) {
			return field
		}
	}
	return ""
}

// invalidProbe is what the API server would have refused, had it seen it: a
// probe that is aimed at the agent, or taken off, is not what it was.
func invalidProbe(kind probeKind, p *corev1.Probe) string {
	switch own := p.TerminationGracePeriodSeconds; {
	case actions(p) > 1:
		return "of more than one kind"
	case p.Exec != nil && len(p.Exec.Command) == 0:
		return "without a command"
	case min(p.InitialDelaySeconds, p.TimeoutSeconds, p.PeriodSeconds, p.SuccessThreshold, p.FailureThreshold) < 0,
		own != nil && *own < 1:
		return "with a number that is too small"
	case kind.takenOff() && cmp.Or(p.SuccessThreshold, 1) != 1:
		return "whose successThreshold is not 1"
	}
	return ""
}

// actions is how many known ones the probe has.
func actions(p *corev1.Probe) (n int) {
	for _, there := range []bool{p.Exec != nil, p.HTTPGet != nil, p.TCPSocket != nil, p.GRPC != nil} {
		if there {
			n++
		}
	}
	return n
}

// invalidPort says what is wrong with a port's number, if anything.
func invalidPort(port int) string {
	if port < 1 || port > 65535 {
		return fmt.Sprintf("at port %d, which is none", port)
	}
	return ""
}
