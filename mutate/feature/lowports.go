// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/patch"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// unprivilegedPorts is a sysctl that lets the agent of a standby, which is not root, listen
// on ports below 1024. Some container runtimes set the sysctl in every container, others in
// none. A standby that cannot listen is never Ready, so a rollout would never end.
// Kubernetes counts the sysctl as safe, and every level of Pod Security allows it. The
// value zero opens every port, so no container runtime's own setting opens more.
var unprivilegedPorts = corev1.Sysctl{Name: "net.ipv4.ip_unprivileged_port_start", Value: "0"}

// firstHighPort is the first port on which every process may listen.
const firstHighPort = 1024

// judgeLowPorts refuses a low port on the node's network, where a pod may not set the
// sysctl [unprivilegedPorts].
func judgeLowPorts(p *Pod) reason.Refusals {
	var refusals reason.Refusals
	if port := p.lowPort(); port != 0 && p.Spec.HostNetwork {
		refusals.Add(reason.HostNetwork, "the pod sets hostNetwork and declares port %d", port)
	}
	return refusals
}

// patchLowPorts opens low ports to the agent, unless the pod sets the sysctl itself.
func patchLowPorts(p *Pod, d *patch.Document) {
	if p.lowPort() == 0 {
		return
	}
	own := func(s corev1.Sysctl) bool { return s.Name == unprivilegedPorts.Name }
	if of := p.Spec.SecurityContext; of == nil || !slices.ContainsFunc(of.Sysctls, own) {
		d.Ensure("name", unprivilegedPorts, "spec", "securityContext", "sysctls")
	}
}

// lowPort returns a declared port below 1024 that a standby would forward, or zero.
func (p *Pod) lowPort() int {
	for _, port := range p.ports() {
		if !port.Probed && port.Number < firstHighPort && p.Request.Standbys() != api.ReadinessHolder {
			return port.Number
		}
	}
	return 0
}
