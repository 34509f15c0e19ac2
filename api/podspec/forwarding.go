// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package podspec

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/metaparticle-io/metaparticle/api"
)

// maxPorts bounds the ports that [Strip] keeps of a pod.
const maxPorts = 64

const (
	readinessWord = "-readiness="
	portsWord     = "-ports="
)

// The stripped agents of pods without ports share these values, which no caller may change.
var (
	forwardArgs = []string{readinessWord + string(api.ReadinessForward)}
	holderArgs  = []string{readinessWord + string(api.ReadinessHolder)}
)

// forwarding returns the ports that a standby of the pod forwards, and whether such a standby can be
// Ready.
func forwarding(spec *corev1.PodSpec) (ports api.Ports, ready bool) {
	i := slices.IndexFunc(spec.InitContainers, isAgent)
	if i < 0 || isLocal(spec.InitContainers[i]) {
		return nil, false
	}
	args := spec.InitContainers[i].Args
	if !slices.ContainsFunc(args, func(word string) bool { return strings.HasPrefix(word, readinessWord) }) {
		return nil, false
	}
	r := api.RecallRunArgs(args)
	return r.Ports, r.Gate == api.GateContainer && r.Readiness != api.ReadinessHolder
}

// stripForwarding returns the arguments of an agent that [forwarding] reads.
func stripForwarding(args []string) []string {
	ports, ready := forwarding(&corev1.PodSpec{InitContainers: []corev1.Container{{Name: api.AgentContainer, RestartPolicy: &always, Args: args}}})
	switch {
	case !ready:
		return holderArgs
	case len(ports) == 0:
		return forwardArgs
	}
	return append(slices.Clone(forwardArgs), portsWord+ports.String())
}

// stripPorts keeps the ports of the containers in a stripped spec: those of the gated containers in the
// first container with a shim, and all others in the agent's container.
func stripPorts(stripped, whole *corev1.PodSpec) {
	if _, ready := forwarding(stripped); !ready {
		return
	}
	gated := slices.IndexFunc(stripped.Containers, isShim)
	agent := slices.IndexFunc(stripped.InitContainers, isAgent)
	kept := 0
	for _, c := range slices.Concat(whole.Containers, whole.InitContainers) {
		to := &stripped.InitContainers[agent].Ports
		if isShim(c) && gated >= 0 {
			to = &stripped.Containers[gated].Ports
		}
		for _, p := range c.Ports {
			if kept++; kept <= maxPorts {
				*to = append(*to, corev1.ContainerPort{Name: strings.Clone(p.Name), ContainerPort: p.ContainerPort, Protocol: corev1.Protocol(strings.Clone(string(p.Protocol)))})
			}
		}
	}
}

// Unforwarded returns the ports of the Service that Ready standbys of the pod do not forward, although
// the Service sends them connections. The argument "labels" has the pod's labels. A Service without a
// cluster IP sends nothing, because its clients choose a pod and a port themselves.
func Unforwarded(service *corev1.Service, labels map[string]string, spec *corev1.PodSpec) (missing []corev1.ServicePort) {
	if service.Spec.ClusterIP == corev1.ClusterIPNone || service.Spec.Type == corev1.ServiceTypeExternalName || !selects(service.Spec.Selector, labels) {
		return nil
	}
	ports, ready := forwarding(spec)
	if !ready {
		return nil
	}
	for _, p := range service.Spec.Ports {
		number := targetOf(spec, p)
		if number != 0 && !ports.Has(number, p.Protocol == corev1.ProtocolUDP) && !servedBeside(spec, number, p.Protocol) {
			p.TargetPort = intstr.FromInt(number)
			missing = append(missing, p)
		}
	}
	return missing
}

// Refused returns, for each Service that sends connections to a port which the standbys of its pods do
// not forward, the first such port. A pod that is alone has no standby. The pods belong to the namespace
// of the Services.
func Refused(services []corev1.Service, pods []*corev1.Pod) (all []RefusedPort) {
	for i := range services {
		var found []RefusedPort
		for _, pod := range pods {
			if pod.DeletionTimestamp != nil {
				continue
			}
			if missing := Unforwarded(&services[i], pod.Labels, &pod.Spec); len(missing) > 0 {
				found = append(found, RefusedPort{&services[i], int(missing[0].TargetPort.IntVal), protocol(missing[0].Protocol), pod.Name})
			}
		}
		if len(found) > 1 {
			all = append(all, found[0])
		}
	}
	return all
}

// RefusedPort is a port of pods to which a Service sends connections, and which standbys refuse. Pod is
// the name of one of these pods.
type RefusedPort struct {
	Service  *corev1.Service
	Number   int
	Protocol corev1.Protocol
	Pod      string
}

func selects(selector, labels map[string]string) bool {
	for key, value := range selector {
		if is, ok := labels[key]; !ok || is != value {
			return false
		}
	}
	return len(selector) > 0
}

// targetOf returns the number of the container's port to which the Service's port leads; zero if no
// container has the name of the port.
func targetOf(spec *corev1.PodSpec, p corev1.ServicePort) int {
	switch {
	case p.TargetPort.Type == intstr.Int && p.TargetPort.IntVal == 0:
		return int(p.Port)
	case p.TargetPort.Type == intstr.Int:
		return int(p.TargetPort.IntVal)
	}
	for _, c := range slices.Concat(spec.Containers, spec.InitContainers) {
		for _, own := range c.Ports {
			if own.Name == p.TargetPort.StrVal && protocol(own.Protocol) == protocol(p.Protocol) {
				return int(own.ContainerPort)
			}
		}
	}
	return 0
}

// servedBeside reports whether a container that is not gated serves the port, in a standby, too.
func servedBeside(spec *corev1.PodSpec, number int, over corev1.Protocol) bool {
	if number == api.AgentPort && protocol(over) == corev1.ProtocolTCP {
		return true
	}
	return slices.ContainsFunc(slices.Concat(spec.Containers, spec.InitContainers), func(c corev1.Container) bool {
		return !isShim(c) && slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool {
			return int(p.ContainerPort) == number && protocol(p.Protocol) == protocol(over)
		})
	})
}

func protocol(p corev1.Protocol) corev1.Protocol {
	if p == "" {
		return corev1.ProtocolTCP
	}
	return p
}
