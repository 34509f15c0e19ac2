// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/host"
	"github.com/metaparticle-io/metaparticle/agent/probe"
	"github.com/metaparticle-io/metaparticle/api"
)

// probePatience bounds the wait for the agent's answer if the probe has a command. The agent
// answers immediately, and the answer tells whether the command must run. The shortest timeout of a
// probe is one second, so half of that second is left for the command.
const probePatience = 500 * time.Millisecond

// asker carries out one exec probe, which the kubelet runs in a gated container.
type asker struct {
	probe   string
	path    string
	client  http.Client
	command []string
}

// probeCommand requests the agent's answer to the probe. If the answer demands that the probe's
// command runs, probeCommand runs the command. The kubelet gets the exit code and the output.
func probeCommand(ctx context.Context, args []string) (int, error) {
	// The kubelet starts this process once in each period of the probe, within the application's
	// limits. So only one thread runs Go code.
	runtime.GOMAXPROCS(1)
	a, err := parseProbe(args)
	if err != nil {
		return api.ExitUsage, err
	}
	response, err := a.ask(ctx)
	if err != nil {
		return a.unanswered(err)
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case probe.StatusPass:
		return 0, nil
	case probe.StatusFail:
		_, err := io.Copy(os.Stdout, response.Body)
		return 1, err
	case probe.StatusRun:
		if a.probe == api.LivenessProbe {
			return a.become()
		}
		return a.run(ctx, response.Header.Get(probe.ChildHeader))
	}
	return a.unanswered(fmt.Errorf("the agent says %s", response.Status))
}

func parseProbe(args []string) (*asker, error) {
	p, command, err := api.ParseProbeArgs(args)
	if err != nil {
		return nil, err
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", p.Socket)
	}
	return &asker{
		probe: p.Probe, path: "http://agent" + api.ProbePath(p.Container, p.Probe), command: command,
		client: http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}},
	}, nil
}

// ask requests the agent's answer to the probe. For a probe without a command, the agent
// carries out the probe before it answers. Such a request may take as long as the kubelet waits.
func (a *asker) ask(ctx context.Context) (*http.Response, error) {
	if len(a.command) > 0 {
		a.client.Timeout = probePatience
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, a.path, http.NoBody)
	if err != nil {
		return nil, err
	}
	return a.client.Do(request)
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
	passed := url.Values{probe.PassedParameter: {strconv.FormatBool(code == 0)}}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, a.path+"?"+passed.Encode(), http.NoBody)
	if err != nil {
		return code, err
	}
	request.Header.Set(probe.ChildHeader, child)
	// A lost result does little harm, because the next probe sends its own result.
	if response, err := a.client.Do(request); err == nil {
		response.Body.Close()
	}
	return code, nil
}
