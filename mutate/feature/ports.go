// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
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

func isTCP(p corev1.ContainerPort) bool { return p.Protocol == "" || p.Protocol == corev1.ProtocolTCP }

func isUDP(p corev1.ContainerPort) bool { return p.Protocol == corev1.ProtocolUDP }
