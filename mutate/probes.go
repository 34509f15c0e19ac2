// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package mutate

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/metaparticle-io/metaparticle/api"
)

// probeKind is one of the probes that a container may have.
type probeKind struct {
	// name is what the agent calls it; empty for one that is taken off.
	name string
	// field is the container's.
	field string
	// in is the container's probe, of is where it is recorded.
	in func(c *corev1.Container) *corev1.Probe
	of func(p *api.Probes) **api.Probe
}

// takenOff: the kubelet does not drive it any more, the agent does.
func (k probeKind) takenOff() bool { return k.name == "" }

// kinds are the probes of a container. The first two the kubelet goes on to
// drive, but asks the agent; the last one the agent drives, because the kubelet
// counts from the start of the container and not of the child.
var kinds = []probeKind{
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

// judgeProbes refuses what cannot be carried over.
func judgeProbes(pod *corev1.Pod, c corev1.Container, refusals *Refusals) {
	before := recorded(pod)[c.Name]
	for _, kind := range kinds {
		p := kind.in(&c)
		if p == nil {
			continue
		}
		if _, problem := carryProbe(pod, c, kind, p, *kind.of(&before)); problem != "" {
			refusals.add(Probes, "container %q has a %s %s", c.Name, kind.field, problem)
		}
	}
}

// probesOf are the gated containers' probes as they were declared: those that
// are there, and those that an earlier pass has put into the agent's flag.
func probesOf(pod *corev1.Pod, gated []int) map[string]api.Probes {
	before, all := recorded(pod), map[string]api.Probes{}
	for _, i := range gated {
		c := pod.Spec.Containers[i]
		was, probes := before[c.Name], api.Probes{}
		for _, kind := range kinds {
			switch p := kind.in(&c); {
			case p != nil:
				*kind.of(&probes), _ = carryProbe(pod, c, kind, p, *kind.of(&was))
			case kind.takenOff() && shimmed(c): // by an earlier pass
				*kind.of(&probes) = *kind.of(&was)
			}
		}
		if probes != (api.Probes{}) {
			all[c.Name] = probes
		}
	}
	return all
}

// recorded are the probes in the flag of a pod's agent. The kubelet expands
// $(NAME) in it, so its dollars are doubled.
func recorded(pod *corev1.Pod) map[string]api.Probes {
	all := map[string]api.Probes{}
	for _, c := range pod.Spec.InitContainers {
		if !ours(pod, c.Name) {
			continue
		}
		// The last pass wrote all of them.
		maps.Copy(all, api.RecallRunArgs(c.Args).Probes)
	}
	return all
}

// carryProbe is a probe as it was declared. One that is aimed at the agent
// already has its timings, but what it does is in the earlier pass's record.
func carryProbe(pod *corev1.Pod, c corev1.Container, kind probeKind, p *corev1.Probe, before *api.Probe) (*api.Probe, string) {
	out := &api.Probe{
		InitialDelaySeconds:           int(p.InitialDelaySeconds),
		TimeoutSeconds:                int(cmp.Or(p.TimeoutSeconds, 1)),
		PeriodSeconds:                 int(cmp.Or(p.PeriodSeconds, 10)),
		SuccessThreshold:              int(cmp.Or(p.SuccessThreshold, 1)),
		FailureThreshold:              int(cmp.Or(p.FailureThreshold, 3)),
		TerminationGracePeriodSeconds: p.TerminationGracePeriodSeconds,
	}
	if own, aimed := unaim(c.Name, kind, p); aimed {
		if before == nil {
			return nil, "that asks an agent, which does not know what it was"
		}
		out.Handler = before.Handler
		if len(own) > 0 {
			out.Handler = api.Handler{Exec: &api.ExecAction{Command: own}}
		}
		return out, ""
	}
	problem := invalidProbe(kind, p)
	switch {
	case problem != "":
	case p.Exec != nil:
		out.Exec = &api.ExecAction{Command: p.Exec.Command}
	case p.HTTPGet != nil:
		out.HTTPGet, problem = carryGet(pod, c, p.HTTPGet)
	case p.TCPSocket != nil:
		out.TCPSocket = &api.TCPSocketAction{Host: p.TCPSocket.Host}
		out.TCPSocket.Port, problem = portNumber(c, p.TCPSocket.Port)
		problem = cmp.Or(problem, loopback(pod, p.TCPSocket.Host))
	case p.GRPC != nil:
		out.GRPC, problem = carryGRPC(p.GRPC)
	default:
		problem = "of no kind that this version knows"
	}
	return out, problem
}

func carryGet(pod *corev1.Pod, c corev1.Container, action *corev1.HTTPGetAction) (*api.HTTPGetAction, string) {
	if action.Protocol != nil && *action.Protocol != corev1.HTTPProtocolHTTP1 {
		return nil, fmt.Sprintf("whose httpGet.protocol is %s", *action.Protocol)
	}
	if !slices.Contains([]corev1.URIScheme{"", corev1.URISchemeHTTP, corev1.URISchemeHTTPS}, action.Scheme) {
		return nil, fmt.Sprintf("whose httpGet.scheme is %s", action.Scheme)
	}
	out := &api.HTTPGetAction{Path: action.Path, Host: action.Host, Scheme: string(action.Scheme)}
	for _, h := range action.HTTPHeaders {
		out.HTTPHeaders = append(out.HTTPHeaders, api.HTTPHeader{Name: h.Name, Value: h.Value})
	}
	var problem string
	out.Port, problem = portNumber(c, action.Port)
	return out, cmp.Or(problem, loopback(pod, action.Host))
}

func carryGRPC(action *corev1.GRPCAction) (*api.GRPCAction, string) {
	out := &api.GRPCAction{Port: int(action.Port)}
	if action.Service != nil {
		out.Service = *action.Service
	}
	if problem := invalidPort(out.Port); problem != "" {
		return nil, problem
	}
	if action.Mode != nil {
		switch *action.Mode {
		case corev1.GRPCProbeModeTLS:
			out.TLS = true
		case corev1.GRPCProbeModePlaintext:
		default:
			return nil, fmt.Sprintf("whose grpc.mode is %s", *action.Mode)
		}
	}
	return out, ""
}

// portNumber resolves a name as the kubelet does: among the container's own.
func portNumber(c corev1.Container, port intstr.IntOrString) (int, string) {
	if port.Type == intstr.Int {
		return port.IntValue(), invalidPort(port.IntValue())
	}
	for _, p := range c.Ports {
		if p.Name == port.StrVal {
			return int(p.ContainerPort), ""
		}
	}
	return 0, fmt.Sprintf("at the port %q, which the container does not name", port.StrVal)
}

// loopback: from the kubelet such a host is the node itself; from the agent it
// is the pod. They are the same on the node's network.
func loopback(pod *corev1.Pod, host string) string {
	ip := net.ParseIP(host)
	if pod.Spec.HostNetwork || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return ""
	}
	return fmt.Sprintf("at the host %q, which means the node itself", host)
}

// unaim tells whether the probe asks the agent already, and takes the agent out
// of its command: as the first program, or behind one that another injector put
// before it. Nothing is left where the agent itself carries the probe out.
func unaim(container string, kind probeKind, p *corev1.Probe) (own []string, aimed bool) {
	switch {
	case kind.takenOff():
	case p.Exec != nil:
		words, ours := p.Exec.Command, probeCommand(container, kind.name)
		for i := range len(words) - len(ours) + 1 {
			if before, rest := words[:i], words[i+len(ours):]; slices.Equal(words[i:i+len(ours)], ours) {
				if len(rest) > 0 && rest[0] == "--" {
					own = slices.Concat(before, rest[1:])
				}
				return own, true
			}
		}
	case p.HTTPGet != nil:
		aimed = p.HTTPGet.Path == api.ProbePath(container, kind.name) && p.HTTPGet.Port == intstr.FromInt32(api.AgentPort)
	}
	return nil, aimed
}

func probeCommand(container, name string) []string {
	return append([]string{api.AgentBinary}, api.ProbeArgs{Probe: name, Container: container}.Args()...)
}

// aim makes a gated container's probes ask the agent, and takes the startup
// probe off. All else of a probe stays as it is: how often the kubelet asks,
// what it makes of it, and the headers, which it carries to the application
// when the agent sends it on.
func aim(d *document, p parts, i int) {
	c := p.pod.Spec.Containers[i]
	probes := p.probes[c.Name]
	for _, kind := range kinds {
		at := []any{"spec", "containers", i, kind.field}
		was := *kind.of(&probes)
		switch {
		case was == nil || kind.in(&c) == nil:
		case kind.takenOff():
			d.remove(at...)
		case was.Exec != nil:
			command := append(append(probeCommand(c.Name, kind.name), "--"), was.Exec.Command...)
			d.set(command, append(at, "exec", "command")...)
		case p.pod.Spec.HostNetwork:
			// A port of ours could be another pod's.
			d.remove(append(at, "httpGet")...)
			d.remove(append(at, "tcpSocket")...)
			d.remove(append(at, "grpc")...)
			d.set(probeCommand(c.Name, kind.name), append(at, "exec", "command")...)
		default:
			d.remove(append(at, "tcpSocket")...)
			d.remove(append(at, "grpc")...)
			d.set(api.ProbePath(c.Name, kind.name), append(at, "httpGet", "path")...)
			d.set(api.AgentPort, append(at, "httpGet", "port")...)
			d.set(string(corev1.URISchemeHTTP), append(at, "httpGet", "scheme")...)
			d.remove(append(at, "httpGet", "host")...)
		}
	}
}
