// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// argument is one row in the table of a role's arguments. T is the type with the values of
// all arguments of the role, such as [RunArgs].
type argument[T any] struct {
	name, meaning string
	// flag reports that the argument is written without a value.
	flag bool
	// The field "expands" reports that the kubelet is to expand $(NAME) in the value.
	expands bool
	// The function "where" reports whether [arguments.words] writes the argument. If the function
	// is nil, [arguments.words] always writes the argument.
	where func(T) bool
	text  func(T) string
	// read sets the value in a T, or returns an error and changes nothing.
	read func(*T, string) error
}

// written returns a copy of the row. For the copy, [arguments.words] writes the argument only if
// the function "where" returns true.
func (a argument[T]) written(where func(T) bool) argument[T] {
	a.where = where
	return a
}

// expanded returns a copy of the row for an argument whose value the kubelet expands.
func (a argument[T]) expanded() argument[T] {
	a.expands = true
	return a
}

// arguments is the table of one role's arguments, in their order in a pod's spec.
type arguments[T any] []argument[T]

// words returns the arguments as a pod's spec has them. The kubelet replaces each $(NAME) in a
// spec, and turns $$ into $. So the method "words" doubles the dollar signs of each value that the
// kubelet must not expand.
func (all arguments[T]) words(of T) []string {
	var words []string
	for _, a := range all {
		switch {
		case a.where != nil && !a.where(of):
		case a.flag:
			words = append(words, "-"+a.name)
		case a.expands:
			words = append(words, "-"+a.name+"="+a.text(of))
		default:
			words = append(words, "-"+a.name+"="+strings.ReplaceAll(a.text(of), "$", "$$"))
		}
	}
	return words
}

// parse reads the arguments from the words that a process gets, and stores their values in "into".
// The result has the words behind the arguments, such as the command of the child. An unknown or
// malformed argument is an error, and so is a request for help.
func (all arguments[T]) parse(role string, into *T, words []string) ([]string, error) {
	var usage strings.Builder
	flags := flag.NewFlagSet("agent "+role, flag.ContinueOnError)
	flags.SetOutput(&usage)
	for _, a := range all {
		read := func(value string) error { return a.read(into, value) }
		if a.flag {
			flags.BoolFunc(a.name, a.meaning, read)
		} else {
			flags.Func(a.name, a.meaning, read)
		}
	}
	switch err := flags.Parse(words); {
	case errors.Is(err, flag.ErrHelp):
		return nil, fmt.Errorf("%w\n%s", err, usage.String())
	case err != nil:
		return nil, fmt.Errorf("agent %s: %w", role, err)
	}
	return flags.Args(), nil
}

// recall reads the arguments back from a pod's spec. Unknown words and invalid values are ignored,
// because another version of the webhook may have written them.
func (all arguments[T]) recall(into *T, words []string) {
	for _, word := range words {
		name, value, valued := strings.Cut(word, "=")
		i := slices.IndexFunc(all, func(a argument[T]) bool { return name == "-"+a.name && valued != a.flag })
		if i < 0 {
			continue
		}
		switch {
		case all[i].flag:
			value = "true"
		case !all[i].expands:
			value = strings.ReplaceAll(value, "$$", "$")
		}
		_ = all[i].read(into, value)
	}
}

// textArg returns the row of an argument whose value is a text. If "allowed" is not empty, the
// value must be one of the allowed texts.
func textArg[T any, S ~string](name, meaning string, field func(*T) *S, allowed ...S) argument[T] {
	return argument[T]{
		name: name, meaning: meaning,
		text: func(of T) string { return string(*field(&of)) },
		read: func(into *T, value string) error {
			if len(allowed) > 0 && !slices.Contains(allowed, S(value)) {
				return fmt.Errorf("write one of %q", allowed)
			}
			*field(into) = S(value)
			return nil
		},
	}
}

// namesArg returns the row of an argument whose value is a comma-separated list of names.
// No name contains a comma.
func namesArg[T any](name, meaning string, field func(*T) *[]string) argument[T] {
	return argument[T]{
		name: name, meaning: meaning,
		text: func(of T) string { return strings.Join(*field(&of), ",") },
		read: func(into *T, value string) error {
			*field(into) = split(value)
			return nil
		},
	}
}

// durationArg returns the row of an argument whose value is a duration.
func durationArg[T any](name, meaning string, field func(*T) *time.Duration) argument[T] {
	return argument[T]{
		name: name, meaning: meaning,
		text: func(of T) string { return field(&of).String() },
		read: func(into *T, value string) error {
			d, err := time.ParseDuration(value)
			if err == nil {
				*field(into) = d
			}
			return err
		},
	}
}

// optionArg returns the row of an argument without a value. If the argument is present, the field
// is true.
func optionArg[T any](name, meaning string, field func(*T) *bool) argument[T] {
	return argument[T]{
		name: name, meaning: meaning, flag: true,
		where: func(of T) bool { return *field(&of) },
		read: func(into *T, value string) error {
			on, err := strconv.ParseBool(value)
			if err == nil {
				*field(into) = on
			}
			return err
		},
	}
}

// split returns the elements of a comma-separated list.
func split(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

// These constants are the roles of the processes of agent and shim. The first argument of a process
// names its role. The shim's program has the roles exec, probe and handle. The agent's program has all
// roles but exec and probe.
const (
	// RunRole is the sidecar, which holds the slots.
	RunRole = "run"
	// ExecRole is the shim, the parent of a gated container's application.
	ExecRole = "exec"
	// InstallRole copies the program of the shims into the shared volume.
	InstallRole = "install"
	// ProbeRole is an exec probe of a gated container.
	ProbeRole = "probe"
	// HandleRole carries out one lifecycle hook for the shim.
	HandleRole = "handle"
	// TurnRole and WaitRole are the init containers of the gate "pod".
	TurnRole = "turn"
	WaitRole = "wait"
	// AfterRole is the init container that waits for the conditions of its pod.
	AfterRole = "after"
	// BarrierRole is the init container that arrives at the barrier of its pod, and waits there.
	BarrierRole = "barrier"
	// LocalRole is the sidecar of a pod whose program uses the local API.
	LocalRole = "api"
	// ReadyRole ends once the local API of its pod accepts connections.
	ReadyRole = "ready"
	// YieldRole asks a running agent to yield.
	YieldRole = "yield"
)

// These constants are the exit codes of agent and shim that are not an application's own.
const (
	// ExitUsage ends a role whose arguments are invalid.
	ExitUsage = 2
	// ExitWaited ends a shim, or the wait at a barrier, that has waited for as long as
	// [WaitAtMostAnnotation] permits (EX_UNAVAILABLE). The application did not start during
	// that wait.
	ExitWaited = 69
	// ExitLost is the exit code of a shim after a lost or yielded slot (EX_TEMPFAIL: try
	// again). The code distinguishes that end from the end of the application. If a
	// shim's signals cannot kill every descendant after a drain, the code is the same. Then the
	// kernel kills the other descendants, because the shim is PID 1.
	ExitLost = 75
	// RestartCode is the exit code by which the agent asks the kubelet to restart
	// all containers of a pod with the gate "pod". No other end of an agent has this
	// code: a panic of Go has 2, and a signal has a code above 128.
	RestartCode = 76
	// ExitBroken ends a shim that cannot work in its container (no /proc, no timer).
	ExitBroken = 125
	// ExitNotExecutable and ExitNotFound are the codes of shells and container
	// runtimes for a command that cannot be started.
	ExitNotExecutable = 126
	ExitNotFound      = 127
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
