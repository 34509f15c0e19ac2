// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"maps"
	"slices"

	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// judgeFields refuses the fields of a probe that would be lost. judgeHooks does so for the
// fields of a hook.
func judgeFields(p *Pod) reason.Refusals {
	var refusals reason.Refusals
	for _, probe := range p.probes {
		kind := probe.kind
		if probe.declared == nil || actions(probe.declared) == 0 {
			continue // a probe of no known kind is refused as a whole
		}
		raw, _ := p.field(probe.place.path(kind.field)...).(map[string]any)
		if field := lostOfProbe(raw, kind.takenOff()); field != "" {
			refusals.Add(reason.Probes, "container %q has a %s with the field %s, which this version does not know", probe.container.Name, kind.field, field)
		}
	}
	return refusals
}

// probeFields are the fields, of the actions of a probe, that this version knows.
var probeFields = map[string][]string{
	"exec":      execFields,
	"httpGet":   httpGetFields,
	"tcpSocket": tcpSocketFields,
	"grpc":      {"port", "service", "mode"},
}

// timingFields are all other fields of a probe.
var timingFields = []string{
	"initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold",
	"terminationGracePeriodSeconds",
}

// lostOfProbe returns a field that would be lost. The agent needs the fields of the action
// that it takes over, and all fields of a probe that is taken off. The kubelet keeps the
// others. A null counts as absent.
func lostOfProbe(probe map[string]any, all bool) string {
	for _, name := range slices.Sorted(maps.Keys(probe)) {
		known, action := probeFields[name]
		if !action {
			if all && probe[name] != nil && !slices.Contains(timingFields, name) {
				return name
			}
			continue
		}
		if name == "exec" && !all {
			continue // the kubelet goes on to run the command
		}
		if field := unknownField(probe[name], known); field != "" {
			return name + "." + field
		}
	}
	return ""
}

// hookFields are the fields, of the actions of a hook, that this version knows.
var hookFields = map[string][]string{
	"exec":      execFields,
	"httpGet":   httpGetFields,
	"tcpSocket": tcpSocketFields,
	"sleep":     {"seconds"},
}

// lostOfHook returns a field of a hook that would be lost. A null counts as absent.
func lostOfHook(hook map[string]any) string {
	for _, action := range slices.Sorted(maps.Keys(hook)) {
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

// The fields, of the actions that probes and hooks share, that this version knows.
var (
	execFields      = []string{"command"}
	httpGetFields   = []string{"path", "port", "host", "scheme", "httpHeaders", "protocol"}
	tcpSocketFields = []string{"port", "host"}
)

// unknownField returns the first field of an action that is not known. A null counts as
// absent.
func unknownField(action any, known []string) string {
	fields, _ := action.(map[string]any)
	for _, field := range slices.Sorted(maps.Keys(fields)) {
		if fields[field] != nil && !slices.Contains(known, field) {
			return field
		}
	}
	return ""
}
