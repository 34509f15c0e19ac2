// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// probePatience bounds the wait for the agent's answer if the probe has a command. The agent
// answers immediately, and the answer tells whether the command must run. The shortest timeout of a
// probe is one second, so half of that second is left for the command.
const probePatience = 500 * time.Millisecond

// asker carries out one exec probe, which the kubelet runs in a gated container.
type asker struct {
	probe, socket, path string
	// hasCommand reports that the application's own probe is a command.
	hasCommand bool
}

// ProbeRole requests the agent's answer to a probe. The kubelet gets the exit code and the output. If the
// application's own probe is a command, the shim runs that command, so the command dies with the
// child.
func ProbeRole(ctx context.Context, args []string) (int, error) {
	// The kubelet starts this process once in each period of the probe, within the application's
	// limits. So only one thread runs Go code.
	runtime.GOMAXPROCS(1)
	a, err := parseProbe(args)
	if err != nil {
		return api.ExitUsage, err
	}
	answer, err := a.ask(ctx)
	if err != nil {
		return a.unanswered(err)
	}
	defer answer.Close()
	switch answer.status {
	case api.ProbePass:
		return 0, nil
	case api.ProbeFail:
		_, err := io.Copy(os.Stdout, answer.body)
		return 1, err
	case api.ProbeRun:
		_ = answer.SetDeadline(time.Time{}) // the kubelet ends this process at the probe's timeout
		return a.ran(answer.body)
	}
	return a.unanswered(fmt.Errorf("the agent says %d", answer.status))
}

func parseProbe(args []string) (*asker, error) {
	p, command, err := api.ParseProbeArgs(args)
	if err != nil {
		return nil, err
	}
	return &asker{probe: p.Probe, socket: p.Socket, path: api.ProbePath(p.Container, p.Probe), hasCommand: len(command) > 0}, nil
}

// answer is the agent's answer to a probe.
type answer struct {
	net.Conn
	status int
	body   *bufio.Reader
}

// ask requests the agent's answer to the probe, in HTTP/1.0 (RFC 1945), and reads the answer up to
// its body. Package http would do the same, but would make the shim's program twice as large. For a
// probe without a command, the agent carries out the probe before it answers. Such a request may
// take as long as the kubelet waits.
func (a *asker) ask(ctx context.Context) (*answer, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", a.socket)
	if err != nil {
		return nil, err
	}
	if a.hasCommand {
		_ = conn.SetDeadline(time.Now().Add(probePatience)) // a socket supports deadlines
	}
	got, err := exchange(conn, "GET "+a.path+" HTTP/1.0\r\nHost: agent\r\n\r\n")
	if err != nil {
		conn.Close()
		return nil, err
	}
	return got, nil
}

// exchange writes the request, and reads the status and the header of the answer.
func exchange(conn net.Conn, request string) (*answer, error) {
	if _, err := io.WriteString(conn, request); err != nil {
		return nil, err
	}
	reader := textproto.NewReader(bufio.NewReader(conn))
	line, err := reader.ReadLine()
	if err != nil {
		return nil, err
	}
	_, rest, _ := strings.Cut(line, " ")
	code, _, _ := strings.Cut(rest, " ")
	status, err := strconv.Atoi(code)
	if err != nil {
		return nil, fmt.Errorf("the agent says %q", line)
	}
	if _, err := reader.ReadMIMEHeader(); err != nil {
		return nil, err
	}
	return &answer{Conn: conn, status: status, body: reader.R}, nil
}

// unanswered returns the result of a probe to which the agent gave no valid answer. Without an
// answer, this process does not know whether a child runs. The liveness probe passes, because the
// shim's watchdog still guards the child. The readiness probe fails, so that no Service sends requests
// to the pod.
func (a *asker) unanswered(err error) (int, error) {
	if a.probe == api.LivenessProbe {
		return 0, nil
	}
	return 1, fmt.Errorf("ask the agent: %w", err)
}

// ran returns the result of a probe whose command the shim runs.
func (a *asker) ran(body *bufio.Reader) (int, error) {
	word, err := body.ReadString('\n')
	if err != nil {
		return a.unanswered(err)
	}
	if _, err := io.Copy(os.Stdout, body); err != nil {
		return a.unanswered(err)
	}
	// A kubelet that ran the command itself would ignore a command that cannot be run. So the
	// liveness probe passes then.
	unknown := word != api.ProbePassed+"\n" && word != api.ProbeFailed+"\n"
	if word == api.ProbePassed+"\n" || unknown && a.probe == api.LivenessProbe {
		return 0, nil
	}
	return 1, nil
}
