// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Probe is a container's probe as the pod's author declared it, before the webhook redirected
// the probe to the agent. The JSON is that of corev1.Probe, with Kubernetes' defaults filled
// in.
type Probe struct {
	Handler
	InitialDelaySeconds int `json:"initialDelaySeconds,omitempty"`
	TimeoutSeconds      int `json:"timeoutSeconds"`
	PeriodSeconds       int `json:"periodSeconds"`
	SuccessThreshold    int `json:"successThreshold"`
	FailureThreshold    int `json:"failureThreshold"`
	// TerminationGracePeriodSeconds is nil if the pod's own grace period applies.
	TerminationGracePeriodSeconds *int64 `json:"terminationGracePeriodSeconds,omitempty"`
}

// InitialDelay returns the time from the start of the child to the first probe.
func (p *Probe) InitialDelay() time.Duration { return seconds(p.InitialDelaySeconds) }

// Timeout returns the time that one probe may take.
func (p *Probe) Timeout() time.Duration { return seconds(p.TimeoutSeconds) }

// Period returns the time from one probe to the next.
func (p *Probe) Period() time.Duration { return seconds(p.PeriodSeconds) }

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }

// Probes are the probes of one gated container. A field is nil if the container lacks that probe.
type Probes struct {
	Startup   *Probe `json:"startup,omitempty"`
	Readiness *Probe `json:"readiness,omitempty"`
	Liveness  *Probe `json:"liveness,omitempty"`
}

// These are the names of the two probes that the kubelet itself runs. The agent's paths and
// commands contain these names.
const (
	LivenessProbe  = "liveness"
	ReadinessProbe = "readiness"
)

// ProbePath returns the path at which the agent answers a container's probe.
func ProbePath(container, probe string) string { return "/probe/" + container + "/" + probe }

// These are the agent's answers to an exec probe. The kubelet runs a program of this project instead
// of an exec probe's own command, and that program asks the agent.
const (
	// ProbePass and ProbeFail are the result of the probe, as statuses of HTTP. The body of ProbeFail
	// explains the failure.
	ProbePass = 200
	ProbeFail = 503
	// ProbeRun means that the shim runs the command of the probe. The body comes once the command has
	// ended. The first line of the body is ProbePassed, ProbeFailed or ProbeUnknown, and the output of
	// the command follows. ProbeUnknown means that the command could not be run.
	ProbeRun     = 202
	ProbePassed  = "passed"
	ProbeFailed  = "failed"
	ProbeUnknown = "unknown"
)

// ProbeArgs are the arguments of an exec probe of a gated container. The command
// of the application's own probe follows these arguments.
type ProbeArgs struct {
	// Probe is [LivenessProbe] or [ReadinessProbe].
	Probe     string
	Container string

	// Socket is the path of the agent's socket. Only tests change the path.
	Socket string
}

// Args returns the words of a probe's command that follow the path of the program. If the
// application's own probe has a command, the caller appends "--" and that command.
func (p ProbeArgs) Args() []string {
	return append([]string{ProbeRole, p.Probe}, probeArguments.words(p)...)
}

// ParseProbeArgs reads the words that follow the role, and returns the command of
// the application's own probe, if there is one.
func ParseProbeArgs(words []string) (p ProbeArgs, command []string, err error) {
	p = ProbeArgs{Socket: ProbeSocket}
	if len(words) > 0 && (words[0] == LivenessProbe || words[0] == ReadinessProbe) {
		p.Probe = words[0]
		if command, err = probeArguments.parse(ProbeRole, &p, words[1:]); err != nil {
			return p, nil, err
		}
	}
	if p.Probe == "" || p.Container == "" {
		return p, nil, fmt.Errorf("usage: agent %s %s|%s -container NAME [flags] [-- COMMAND [ARGUMENTS]]", ProbeRole, LivenessProbe, ReadinessProbe)
	}
	return p, command, nil
}

var probeArguments = arguments[ProbeArgs]{
	textArg("container", "name of this container", func(p *ProbeArgs) *string { return &p.Container }),
	textArg("socket", "the agent's socket for probes", func(p *ProbeArgs) *string { return &p.Socket }).
		written(func(p ProbeArgs) bool { return p.Socket != "" && p.Socket != ProbeSocket }),
}

// Handler is the action of a probe or a lifecycle hook: one of its fields is set. The names of the
// JSON fields are those of corev1.ProbeHandler and corev1.LifecycleHandler. The webhook has
// replaced the name of each port by its number.
type Handler struct {
	Exec      *ExecAction      `json:"exec,omitempty"`
	HTTPGet   *HTTPGetAction   `json:"httpGet,omitempty"`
	TCPSocket *TCPSocketAction `json:"tcpSocket,omitempty"`
	// Only probes have GRPC, and only hooks have Sleep.
	GRPC  *GRPCAction  `json:"grpc,omitempty"`
	Sleep *SleepAction `json:"sleep,omitempty"`
}

// String returns the handler as JSON. People read this JSON in a pod's spec, so "<" is not escaped.
func (h Handler) String() string {
	var text strings.Builder
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(h) // never fails for strings and numbers
	return strings.TrimSpace(text.String())
}

// parseHandler reads the text of [Handler.String].
func parseHandler(text string) (Handler, error) {
	var h Handler
	err := json.Unmarshal([]byte(text), &h)
	return h, err
}

// ExecAction runs a command in the container of the probe or hook.
type ExecAction struct {
	Command []string `json:"command,omitempty"`
}

// HTTPGetAction sends a request. An empty Host means the pod's address.
type HTTPGetAction struct {
	Path        string       `json:"path,omitempty"`
	Port        int          `json:"port"`
	Host        string       `json:"host,omitempty"`
	Scheme      string       `json:"scheme,omitempty"`
	HTTPHeaders []HTTPHeader `json:"httpHeaders,omitempty"`
}

// HTTPHeader is one header of an [HTTPGetAction].
type HTTPHeader struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// TCPSocketAction opens a connection. An empty Host means the pod's address.
type TCPSocketAction struct {
	Port int    `json:"port"`
	Host string `json:"host,omitempty"`
}

// GRPCAction asks for the health of a service by gRPC.
type GRPCAction struct {
	Port    int    `json:"port"`
	Service string `json:"service,omitempty"`
	// TLS encrypts the connection, without a check of the certificate.
	TLS bool `json:"tls,omitempty"`
}

// SleepAction waits for some seconds.
type SleepAction struct {
	Seconds int64 `json:"seconds"`
}
