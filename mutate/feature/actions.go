// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package feature

import (
	"cmp"
	"fmt"
	"net"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/metaparticle-io/metaparticle/api"
)

// The functions of this file translate an action of a probe or a hook into the agent's
// form: a type of package api. The last result of each function is the problem with the action,
// or an empty text. In a message, the problem follows the name of the probe or hook.

// carryGet returns an HTTP request in the agent's form, or the problem with the request.
func (f Facts) carryGet(c *corev1.Container, action *corev1.HTTPGetAction) (*api.HTTPGetAction, string) {
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
	return out, cmp.Or(problem, f.loopback(action.Host))
}

// carryGRPC returns a gRPC health check in the agent's form, or the problem with the check.
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

// portNumber returns the number of a port, or the problem with the port. The function looks a name
// up among the container's ports, as the kubelet does.
func portNumber(c *corev1.Container, port intstr.IntOrString) (int, string) {
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

// invalidPort returns the problem with the number of a port; empty for a valid number.
func invalidPort(port int) string {
	if port < 1 || port > 65535 {
		return fmt.Sprintf("at port %d, which is none", port)
	}
	return ""
}

// loopback returns the problem with a host that is a loopback address; empty for any other host.
// The kubelet would reach the node at such an address, but the agent would reach the pod. If the
// pod uses its node's network, both reach the node, so there is no problem.
func (f Facts) loopback(host string) string {
	ip := net.ParseIP(host)
	if f.Spec.HostNetwork || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return ""
	}
	return fmt.Sprintf("at the host %q, which means the node itself", host)
}
