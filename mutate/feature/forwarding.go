// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// judgeListed refuses ports of [api.PortsAnnotation] on which a standby's agent could not listen, or
// would take the port from another process.
func judgeListed(p *Pod) reason.Refusals {
	var refusals reason.Refusals
	for _, port := range p.Request.Ports {
		switch by := p.declarer(port); {
		case !port.UDP && port.Number == api.AgentPort && !p.Spec.HostNetwork:
			refusals.Add(reason.BadAnnotation, "%s names %v, the agent's own port: leave it out", api.PortsAnnotation, port)
		case by == "" && p.Spec.HostNetwork:
			// The scheduler keeps two pods with the same declared port on different nodes.
			refusals.Add(reason.BadAnnotation, "%s names %v, which no container declares, and the pod uses its node's network: declare the port", api.PortsAnnotation, port)
		case by != "" && !slices.Contains(gatedNames(p), by):
			refusals.Add(reason.BadAnnotation, "%s names %v of container %q, which serves it in every pod: leave it out", api.PortsAnnotation, port, by)
		}
	}
	return refusals
}

// declarer returns the name of the main container that declares the port; empty if none does.
func (p *Pod) declarer(port api.Port) string {
	for _, c := range p.Spec.Containers {
		if slices.ContainsFunc(c.Ports, func(its corev1.ContainerPort) bool {
			return int(its.ContainerPort) == port.Number && isUDP(its) == port.UDP && (isTCP(its) || isUDP(its))
		}) {
			return c.Name
		}
	}
	return ""
}

// ports returns the ports that a standby forwards. By default these are the TCP and UDP ports that gated
// containers declare, and the ports that only probes name.
// With a start lock alone, no pod forwards a port, because each pod soon runs its own application.
// The Service of a StatefulSet is usually headless, so clients reach each pod at its own
// address. So the standbys of a StatefulSet forward no port by default. If the Service has a
// cluster IP, a person can make the standbys forward by the annotations
// metaparticle.io/readiness and metaparticle.io/ports.
func (p *Pod) ports() api.Ports {
	if !p.Request.Shims() || p.Request.StartsOnly() || p.silent() {
		return nil
	}
	if len(p.Request.Ports) > 0 {
		return p.Request.Ports
	}
	var ports api.Ports
	for _, i := range p.gated {
		for _, port := range p.Spec.Containers[i].Ports {
			if p.canForward(port) {
				ports = append(ports, api.Port{Number: int(port.ContainerPort), UDP: isUDP(port)})
			}
		}
	}
	return append(ports, p.probed()...).Sorted()
}

// silent reports whether the standbys forward nothing because the pod belongs to a StatefulSet.
func (p *Pod) silent() bool {
	return p.Workload.Group == "apps" && p.Workload.Kind == "StatefulSet" && p.Request.Readiness == "" && len(p.Request.Ports) == 0
}

// canForward reports whether a standby can forward the port. The agent is not root, so it may not
// listen on a low port of the node's network. [judgeLowPorts] refuses such a TCP port.
func (p *Pod) canForward(port corev1.ContainerPort) bool {
	return isTCP(port) || isUDP(port) && (!p.Spec.HostNetwork || port.ContainerPort >= firstHighPort)
}

// unforwarded returns the first declared port that keeps the standbys from being Ready: a Service could
// send clients there, and a standby could not forward them.
func (p *Pod) unforwarded() (corev1.ContainerPort, bool) {
	if p.Request.Standbys() != api.ReadinessForward || len(p.Request.Ports) > 0 || p.silent() {
		return corev1.ContainerPort{}, false
	}
	for _, i := range p.gated {
		for _, port := range p.Spec.Containers[i].Ports {
			if !p.canForward(port) {
				return port, true
			}
		}
	}
	return corev1.ContainerPort{}, false
}

// warnOfForwarding warns if no standby is Ready because of a port, and if standbys forward metrics.
func warnOfForwarding(p *Pod) reason.Refusals {
	warnings := warnOfMetrics(p)
	if p.hindered != (corev1.ContainerPort{}) {
		warnings.Add(reason.PortNotForwarded, "a standby cannot forward port %d/%s, so only the holder is Ready", p.hindered.ContainerPort, p.hindered.Protocol)
	}
	return warnings
}

// probed returns the TCP ports that the probes of the gated containers name, because many pods declare
// none of their ports. If another container runs beside the gated ones, the port could be that
// container's own: the proxies of some meshes answer the probes of all containers. On the node's network,
// the port could be that of another pod.
func (p *Pod) probed() api.Ports {
	if p.Request.Standbys() != api.ReadinessForward || p.Spec.HostNetwork || len(p.gated) < len(p.Spec.Containers) || p.hasSidecar() {
		return nil
	}
	var ports api.Ports
	for _, probe := range p.probes {
		if probe.carried == nil {
			continue
		}
		if port := portOf(probe.carried.Handler); port != 0 && port != api.AgentPort {
			ports = append(ports, api.Port{Number: port, Probed: true})
		}
	}
	return ports
}

// portOf returns the port of the pod that an action asks; zero for none.
func portOf(h api.Handler) int {
	switch {
	case h.HTTPGet != nil && h.HTTPGet.Host == "":
		return h.HTTPGet.Port
	case h.TCPSocket != nil && h.TCPSocket.Host == "":
		return h.TCPSocket.Port
	case h.GRPC != nil:
		return h.GRPC.Port
	}
	return 0
}

// hasSidecar reports whether the pod has a native sidecar of its own.
func (p *Pod) hasSidecar() bool {
	return slices.ContainsFunc(p.Spec.InitContainers, func(c corev1.Container) bool {
		return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways && !isInjected(p.Pod, c.Name)
	})
}

// The annotations by which the usual configurations of Prometheus find a pod's metrics.
const (
	scrape     = "prometheus.io/scrape"
	scrapePort = "prometheus.io/port"
)

// warnOfMetrics warns if standbys forward the port of the metrics. Prometheus scrapes each pod, and would
// get the holder's series from each of them.
func warnOfMetrics(p *Pod) reason.Refusals {
	var warnings reason.Refusals
	if p.Request.Standbys() != api.ReadinessForward {
		return nil
	}
	ports := p.ports()
	if p.Annotations[scrape] == "true" {
		number, err := strconv.Atoi(p.Annotations[scrapePort])
		switch {
		case err == nil && ports.Has(number, false):
			warnings.Add(reason.MetricsForwarded, "%s is %d", scrapePort, number)
			return warnings
		case p.Annotations[scrapePort] == "" && len(ports) > 0:
			warnings.Add(reason.MetricsForwarded, "%s is \"true\"", scrape)
			return warnings
		}
	}
	for _, i := range p.gated {
		for _, port := range p.Spec.Containers[i].Ports {
			if isTCP(port) && namesMetrics(port.Name) && ports.Has(int(port.ContainerPort), false) {
				warnings.Add(reason.MetricsForwarded, "port %d has the name %q", port.ContainerPort, port.Name)
				return warnings
			}
		}
	}
	return warnings
}

// namesMetrics reports whether the name of a port says that metrics are there, as http-metrics does.
func namesMetrics(name string) bool {
	return slices.ContainsFunc(strings.Split(name, "-"), func(word string) bool {
		return slices.Contains([]string{"metrics", "metric", "prometheus", "prom"}, word)
	})
}
