// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"maps"
	"slices"

	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// judgeFields refuses a probe with a field that the agent does not know, because the patch would
// lose the field. For hooks, judgeHooks does the same.
func judgeFields(p *Pod) reason.Refusals {
	var refusals reason.Refusals
	for _, probe := range p.probes {
		kind := probe.kind
		if probe.declared == nil || actions(probe.declared) == 0 {
			continue // judgeProbes refuses a probe of an unknown kind
		}
		raw, _ := p.field(probe.place.path(kind.field)...).(map[string]any)
		if field := lostOfProbe(raw, kind.takenOff()); field != "" {
			refusals.Add(reason.Probes, "container %q has a %s with the field %s, which this version does not know", probe.container.Name, kind.field, field)
		}
	}
	return refusals
}

// probeFields has the known fields of each action of a probe.
var probeFields = map[string][]string{
	"exec":      execFields,
	"httpGet":   httpGetFields,
	"tcpSocket": tcpSocketFields,
	"grpc":      {"port", "service", "mode"},
}

// timingFields are the known fields of a probe beside its action.
var timingFields = []string{
	"initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold",
	"terminationGracePeriodSeconds",
}

// lostOfProbe returns a field that the patch would lose because the agent does not know that
// field; empty for none. The agent takes over the action of a probe. If the argument "all"
// is true, the agent takes over the whole probe, with every field. A null counts as absent.
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
			continue // the patch keeps the exec action, with all its fields
		}
		if field := unknownField(probe[name], known); field != "" {
			return name + "." + field
		}
	}
	return ""
}

// hookFields has the known fields of each action of a hook.
var hookFields = map[string][]string{
	"exec":      execFields,
	"httpGet":   httpGetFields,
	"tcpSocket": tcpSocketFields,
	"sleep":     {"seconds"},
}

// lostOfHook returns a field of a hook that the patch would lose, or an empty text. A null
// counts as absent.
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

// These are the known fields of the actions that probes and hooks share.
var (
	execFields      = []string{"command"}
	httpGetFields   = []string{"path", "port", "host", "scheme", "httpHeaders", "protocol"}
	tcpSocketFields = []string{"port", "host"}
)

// unknownField returns the first unknown field of an action, or an empty text. A null
// counts as absent.
func unknownField(action any, known []string) string {
	fields, _ := action.(map[string]any)
	for _, field := range slices.Sorted(maps.Keys(fields)) {
		if fields[field] != nil && !slices.Contains(known, field) {
			return field
		}
	}
	return ""
}
