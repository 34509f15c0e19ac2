// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package api

import "fmt"

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
