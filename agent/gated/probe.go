// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gated

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
	"syscall"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/host"
	"github.com/metaparticle-io/metaparticle/api"
)

// probePatience bounds the wait for the agent's answer if the probe has a command. The agent
// answers immediately, and the answer tells whether the command must run. The shortest timeout of a
// probe is one second, so half of that second is left for the command.
const probePatience = 500 * time.Millisecond

// asker carries out one exec probe, which the kubelet runs in a gated container.
type asker struct {
	probe, socket, path string
	command             []string
}

// Probe requests the agent's answer to a probe. If the answer demands that the probe's command runs,
// Probe runs the command. The kubelet gets the exit code and the output.
func Probe(ctx context.Context, args []string) (int, error) {
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
		if a.probe == api.LivenessProbe {
			return a.become()
		}
		return a.run(ctx, answer.child)
	}
	return a.unanswered(fmt.Errorf("the agent says %d", answer.status))
}

func parseProbe(args []string) (*asker, error) {
	p, command, err := api.ParseProbeArgs(args)
	if err != nil {
		return nil, err
	}
	return &asker{probe: p.Probe, socket: p.Socket, path: api.ProbePath(p.Container, p.Probe), command: command}, nil
}

// answer is the agent's answer to a probe.
type answer struct {
	net.Conn
	status int
	// child is the child whose command is to run.
	child string
	body  io.Reader
}

// ask requests the agent's answer to the probe. For a probe without a command, the agent
// carries out the probe before it answers. Such a request may take as long as the kubelet waits.
func (a *asker) ask(ctx context.Context) (*answer, error) {
	return a.send(ctx, "GET", a.path, "")
}

// send sends a request in HTTP/1.0 (RFC 1945), and reads the answer up to its body. Package http
// would do the same, but would make the shim's program twice as large.
func (a *asker) send(ctx context.Context, method, path, child string) (*answer, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", a.socket)
	if err != nil {
		return nil, err
	}
	if len(a.command) > 0 {
		_ = conn.SetDeadline(time.Now().Add(probePatience)) // a socket supports deadlines
	}
	got, err := exchange(conn, fmt.Sprintf("%s %s HTTP/1.0\r\nHost: agent\r\n%s: %s\r\nContent-Length: 0\r\n\r\n", method, path, api.ProbeChildHeader, child))
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
	header, err := reader.ReadMIMEHeader()
	if err != nil {
		return nil, err
	}
	return &answer{Conn: conn, status: status, child: header.Get(api.ProbeChildHeader), body: reader.R}, nil
}

// unanswered returns the result of a probe to which the agent gave no valid answer. Without an
// answer, nobody knows whether a child runs. The liveness probe passes, because the shim's watchdog
// still guards the child. The readiness probe fails, so that no Service sends requests to the pod.
func (a *asker) unanswered(err error) (int, error) {
	if a.probe == api.LivenessProbe {
		return 0, nil
	}
	return 1, fmt.Errorf("ask the agent: %w", err)
}

// become replaces this process by the command of the probe.
func (a *asker) become() (int, error) {
	path, err := host.LookPath(a.command[0], os.Getenv("PATH"))
	if err == nil {
		err = fmt.Errorf("start %s: %w", path, syscall.Exec(path, a.command, os.Environ()))
	}
	// A kubelet that ran the command itself would ignore a command that cannot be run. So the
	// probe passes here.
	return 0, err
}

// run runs the command, and reports its outcome to the agent.
func (a *asker) run(ctx context.Context, child string) (int, error) {
	// At the timeout, the kubelet kills only this process. Because of Pdeathsig, the kernel
	// then kills the command when the thread that started it ends.
	runtime.LockOSThread()
	path, err := host.LookPath(a.command[0], os.Getenv("PATH"))
	if err != nil {
		return 1, err
	}
	process, err := os.StartProcess(path, a.command, &os.ProcAttr{
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys:   &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		return 1, fmt.Errorf("start %s: %w", path, err)
	}
	state, err := process.Wait()
	if err != nil {
		return 1, fmt.Errorf("wait for %s: %w", path, err)
	}
	code := state.ExitCode()
	if code < 0 {
		code = 128 + int(state.Sys().(syscall.WaitStatus).Signal())
	}
	// A lost result does little harm, because the next probe sends its own result.
	if answer, err := a.send(ctx, "POST", a.path+"?"+api.ProbePassed+"="+strconv.FormatBool(code == 0), child); err == nil {
		answer.Close()
	}
	return code, nil
}
