// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// judgePorts refuses a container that declares the agent's own port. On the node's network
// the agent has no port, so the container may declare any port.
func judgePorts(p *Pod, at place) reason.Refusals {
	var refusals reason.Refusals
	c, own := p.container(at), int32(api.AgentPort)
	if p.Request.Gate == api.GateProgram {
		own = api.LocalPort
	}
	for _, port := range c.Ports {
		if port.ContainerPort == own && isTCP(port) && !p.Spec.HostNetwork {
			refusals.Add(reason.PortTaken, "container %q declares port %d", c.Name, port.ContainerPort)
		}
	}
	return refusals
}

// ports returns the TCP ports that a standby forwards: those that gated containers declare.
// With a start lock alone, no pod forwards a port, because each pod soon runs its own application.
// The Service of a StatefulSet is usually headless, so clients reach each pod at its own
// address. So the standbys of a StatefulSet forward no port by default. If the Service has a
// cluster IP, a person can make the standbys forward by the annotation
// metaparticle.io/readiness.
func (p *Pod) ports() []int {
	if !p.Request.Shims() || p.Request.StartsOnly() {
		return nil
	}
	if p.Workload.Group == "apps" && p.Workload.Kind == "StatefulSet" && p.Request.Readiness == "" {
		return nil
	}
	var ports []int
	for _, i := range p.gated {
		for _, port := range p.Spec.Containers[i].Ports {
			if isTCP(port) {
				ports = append(ports, int(port.ContainerPort))
			}
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

func isTCP(p corev1.ContainerPort) bool { return p.Protocol == "" || p.Protocol == corev1.ProtocolTCP }
