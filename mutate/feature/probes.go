// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"cmp"
	"maps"
	"math"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/mutate/patch"
	"github.com/metaparticle-io/metaparticle/mutate/reason"
)

// carryProbes returns the probes of the gated containers in the agent's form. If an earlier pass
// has moved a startup probe into the agent's arguments, the function takes the probe from there.
func carryProbes(f Facts, gated []int) []carriedProbe {
	before := recordedProbes(f.Pod)
	var all []carriedProbe
	for _, i := range gated {
		c := &f.Spec.Containers[i]
		was := before[c.Name]
		for _, kind := range probeKinds {
			one := carriedProbe{
				place: place{mainContainers, i}, container: c, kind: kind,
				declared: kind.in(c), carried: *kind.of(&was),
			}
			switch {
			case one.declared != nil:
				one.carried, one.problem = f.carryProbe(c, kind, one.declared, one.carried)
			case !kind.takenOff() || one.carried == nil || !hasShim(c):
				continue
			case !sound(one.carried):
				one.problem = "in the agent's arguments, with a number that no probe has"
			}
			all = append(all, one)
		}
	}
	return all
}

// sound reports whether a probe in the agent's arguments has valid numbers. A person may
// have written these arguments, and the API server does not validate the numbers.
func sound(p *api.Probe) bool {
	timings := []int{p.InitialDelaySeconds + 1, p.TimeoutSeconds, p.PeriodSeconds, p.SuccessThreshold, p.FailureThreshold}
	return slices.Min(timings) > 0 && slices.Max(timings) <= math.MaxInt32
}

// recordedProbes returns the probes in the arguments of the pod's agent, by container. An earlier
// pass has written these arguments.
func recordedProbes(pod *corev1.Pod) map[string]api.Probes {
	all := map[string]api.Probes{}
	for _, c := range pod.Spec.InitContainers {
		// An injected container of another name is left over from another gate, and may have
		// old arguments.
		if c.Name == api.AgentContainer && isInjected(pod, c.Name) {
			maps.Copy(all, api.RecallRunArgs(c.Args).Probes)
		}
	}
	return all
}

// carryProbe returns a declared probe in the agent's form, or the problem with the probe. If an
// earlier pass redirected the probe to the agent, the declared action only asks the agent. The
// result then has the probe's own command, if the declared command contains one, or else the
// action in the agent's arguments. The timings always come from the declared probe.
func (f Facts) carryProbe(c *corev1.Container, kind probeKind, p *corev1.Probe, before *api.Probe) (*api.Probe, string) {
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
		out.HTTPGet, problem = f.carryGet(c, p.HTTPGet)
	case p.TCPSocket != nil:
		out.TCPSocket = &api.TCPSocketAction{Host: p.TCPSocket.Host}
		out.TCPSocket.Port, problem = portNumber(c, p.TCPSocket.Port)
		problem = cmp.Or(problem, f.loopback(p.TCPSocket.Host))
	case p.GRPC != nil:
		out.GRPC, problem = carryGRPC(p.GRPC)
	default:
		problem = "of no kind that this version knows"
	}
	return out, problem
}

// judgeProbes refuses a probe that the agent cannot run in the kubelet's stead.
func judgeProbes(p *Pod, at place) reason.Refusals {
	var refusals reason.Refusals
	for _, probe := range p.probes {
		if probe.place == at && probe.problem != "" {
			refusals.Add(reason.Probes, "container %q has a %s %s", probe.container.Name, probe.kind.field, probe.problem)
		}
	}
	return refusals
}

// patchProbes makes the probes of the gated containers ask the agent, and removes the startup
// probes. The timings stay in each probe, and the kubelet obeys the timings. If the agent answers
// with an HTTP redirect to the application, the kubelet sends the probe's headers to the
// application.
func patchProbes(p *Pod, d *patch.Document) {
	for _, probe := range p.probes {
		name, kind := probe.container.Name, probe.kind
		at := func(field ...any) []any { return append(probe.place.path(kind.field), field...) }
		switch {
		case probe.declared == nil:
		case kind.takenOff():
			d.Remove(at()...)
		case probe.carried.Exec != nil:
			command := append(append(probeCommand(name, kind.name), "--"), probe.carried.Exec.Command...)
			d.Set(command, at("exec", "command")...)
		case p.Spec.HostNetwork:
			// On the node's network the agent has no port, so a command in the container
			// asks the agent.
			d.Remove(at("httpGet")...)
			d.Remove(at("tcpSocket")...)
			d.Remove(at("grpc")...)
			d.Set(probeCommand(name, kind.name), at("exec", "command")...)
		default:
			d.Remove(at("tcpSocket")...)
			d.Remove(at("grpc")...)
			d.Set(api.ProbePath(name, kind.name), at("httpGet", "path")...)
			d.Set(api.AgentPort, at("httpGet", "port")...)
			d.Set(string(corev1.URISchemeHTTP), at("httpGet", "scheme")...)
			d.Remove(at("httpGet", "host")...)
		}
	}
}

// probesByContainer returns the probes for the agent's arguments.
func (p *Pod) probesByContainer() map[string]api.Probes {
	all := map[string]api.Probes{}
	for _, probe := range p.probes {
		its := all[probe.container.Name]
		*probe.kind.of(&its) = probe.carried
		all[probe.container.Name] = its
	}
	return all
}

// unaim reports whether an earlier pass through the webhook has redirected a probe to the agent.
// The function also returns the probe's own command, without the words of the agent's command.
// Another injector may have put words before the agent's command. The probe's own command is
// empty if the agent itself probes the application.
func unaim(container string, kind probeKind, p *corev1.Probe) (own []string, aimed bool) {
	switch {
	case kind.takenOff():
	case p.Exec != nil:
		words, agents := p.Exec.Command, probeCommand(container, kind.name)
		for i := range len(words) - len(agents) + 1 {
			if before, rest := words[:i], words[i+len(agents):]; slices.Equal(words[i:i+len(agents)], agents) {
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

// probeCommand returns the command by which an exec probe asks the agent.
func probeCommand(container, name string) []string {
	return append([]string{api.ShimProgram}, api.ProbeArgs{Probe: name, Container: container}.Args()...)
}
