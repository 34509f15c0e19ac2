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

// Standby is a pod whose standbys are Ready, and forward. Only [StandbysOf] makes it, so the agent's
// arguments are parsed once.
type Standby struct {
	pod   *corev1.Pod
	ports api.Ports
}

// StandbysOf returns the pods whose standbys are Ready, without those that are being deleted.
func StandbysOf(pods []*corev1.Pod) (standbys []Standby) {
	for _, pod := range pods {
		if ports, ready := forwarding(&pod.Spec); ready && pod.DeletionTimestamp == nil {
			standbys = append(standbys, Standby{pod, ports})
		}
	}
	return standbys
}

// RefusedOf returns the first port of the Service to which it sends connections, and which the standbys
// of its pods refuse. A pod that is alone has no standby. A Service without a cluster IP sends nothing,
// because its clients choose a pod and a port themselves. The pods belong to the Service's namespace.
func RefusedOf(service *corev1.Service, standbys []Standby) (RefusedPort, bool) {
	if service.Spec.ClusterIP == corev1.ClusterIPNone || service.Spec.Type == corev1.ServiceTypeExternalName {
		return RefusedPort{}, false
	}
	var found RefusedPort
	for _, s := range standbys {
		p, number := s.refuses(service)
		switch {
		case number == 0:
		case found.Service != nil:
			return found, true
		default:
			found = RefusedPort{service, number, protocol(p.Protocol), s.pod.Name}
		}
	}
	return RefusedPort{}, false
}

// refuses returns the first port of the Service that the pod's standbys refuse, and the number of the
// container's port; zero without such a port.
func (s Standby) refuses(service *corev1.Service) (corev1.ServicePort, int) {
	if !selects(service.Spec.Selector, s.pod.Labels) {
		return corev1.ServicePort{}, 0
	}
	for _, p := range service.Spec.Ports {
		number := targetOf(&s.pod.Spec, p)
		if number != 0 && !s.ports.Has(number, p.Protocol == corev1.ProtocolUDP) && !servedBeside(&s.pod.Spec, number, p.Protocol) {
			return p, number
		}
	}
	return corev1.ServicePort{}, 0
}

// Refused returns what [RefusedOf] finds of each Service.
func Refused(services []corev1.Service, pods []*corev1.Pod) (all []RefusedPort) {
	standbys := StandbysOf(pods)
	for i := range services {
		if r, refused := RefusedOf(&services[i], standbys); refused {
			all = append(all, r)
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
	for _, list := range [][]corev1.Container{spec.Containers, spec.InitContainers} {
		for i := range list {
			for _, own := range list[i].Ports {
				if own.Name == p.TargetPort.StrVal && protocol(own.Protocol) == protocol(p.Protocol) {
					return int(own.ContainerPort)
				}
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
