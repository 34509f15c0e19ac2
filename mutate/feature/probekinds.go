// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"cmp"

	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
)

// probeKind is one of the three probes of a container.
type probeKind struct {
	// name is the agent's name for the kind; empty for a probe that the patch removes from the
	// container.
	name string
	// field is the name of the container's field with this probe.
	field string
	// The function "in" returns the container's probe. The function "of" returns the
	// probe's field in the agent's arguments.
	in func(c *corev1.Container) *corev1.Probe
	of func(p *api.Probes) **api.Probe
}

// takenOff reports whether the agent, and not the kubelet, drives the probe.
func (k probeKind) takenOff() bool { return k.name == "" }

// probeKinds are the probes of a container. The kubelet drives the liveness and readiness
// probes, and sends them to the agent. The agent drives the startup probe, because the
// kubelet would count from the start of the container, and not from the start of the child.
var probeKinds = []probeKind{
	{
		name: api.LivenessProbe, field: "livenessProbe",
		in: func(c *corev1.Container) *corev1.Probe { return c.LivenessProbe },
		of: func(p *api.Probes) **api.Probe { return &p.Liveness },
	},
	{
		name: api.ReadinessProbe, field: "readinessProbe",
		in: func(c *corev1.Container) *corev1.Probe { return c.ReadinessProbe },
		of: func(p *api.Probes) **api.Probe { return &p.Readiness },
	},
	{
		field: "startupProbe",
		in:    func(c *corev1.Container) *corev1.Probe { return c.StartupProbe },
		of:    func(p *api.Probes) **api.Probe { return &p.Startup },
	},
}

// invalidProbe returns the problem for which the API server would refuse the declared probe.
// The API server validates only the patched probe, which lacks that problem.
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

// actions returns the number of known actions that a probe has.
func actions(p *corev1.Probe) (n int) {
	for _, there := range []bool{p.Exec != nil, p.HTTPGet != nil, p.TCPSocket != nil, p.GRPC != nil} {
		if there {
			n++
		}
	}
	return n
}
