// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/app"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/kubectl"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// People use kubectl on the holder and on a standby. No command names a container,
// because the application's container is the default.
//
// docs/reference/compatibility.md: pod/exec pod/logs pod/port-forward pod/debug pod/attach pod/default-container carried
func TestKubectlCommandsSucceedOnHolderAndStandby(t *testing.T) {
	cluster.NeedLab(t, "it needs the record")
	t.Parallel()
	s := space.New(t)
	a := app.Lasting("used")
	a.Replicas = 2
	a.Args = []string{"-echo"}
	a.Edit = func(template *corev1.PodTemplateSpec) { template.Spec.Containers[0].Stdin = true }
	app.Deploy(s, a)
	before := app.AwaitRunning(s, a, space.Soon)
	for _, pod := range s.Pods(a.Name) {
		name := "standby"
		if pod.Name == before.Pod {
			name = "holder"
		}
		t.Run(name+" exec", func(t *testing.T) {
			// On a busy machine a stream may break, or lose its first line. So the test
			// repeats the command until the answer is whole.
			answers := func(stdin, want string, args ...string) {
				var out string
				s.Within(kubectl.Timeout, func() bool {
					out, _ = kubectl.Run(s, stdin, append([]string{"exec", "-i", pod.Name, "--", "/app"}, args...)...)
					if out != want {
						s.Remark("%s: kubectl exec says %q", name, out)
					}
					return out == want
				})
				assert.Equal(t, want, out)
			}
			answers("", "command terminated with exit code 7\n", "-run-for=1ms", "-exit-code=7")
			answers("through and back", "through and back", "-echo") // kubectl cp sends a tar archive in the same way
		})
		t.Run(name+" logs", func(t *testing.T) {
			out := kubectl.Must(s, "", "logs", pod.Name)
			assert.NotContains(t, out, `"level"`, "the agent's log is not the default")
			if name == "standby" {
				s.Await(space.StartTimeout, "it says what it waits for", func() bool {
					return strings.Contains(kubectl.Must(s, "", "logs", pod.Name), "metaparticle: standing by: ")
				})
			}
		})
		t.Run(name+" port-forward", func(t *testing.T) {
			var answered, problem string
			s.Within(space.StartTimeout, func() bool {
				answered, problem = forwarded(s, pod)
				return answered == before.Pod
			})
			assert.Equal(t, before.Pod, answered, problem)
		})
		t.Run(name+" debug", func(t *testing.T) { kubectl.Debug(s, pod) })
	}
	t.Run("attach", func(t *testing.T) { attach(s, before.Pod) })
	assert.Equal(t, before.ID, app.AwaitRunning(s, a, space.Soon).ID, "none of it has disturbed the application")
	assert.Zero(t, app.Restarts(s, a))
	t.Run("agent's log", func(t *testing.T) { agentLog(s, before.Pod) })
}

// agentLog deletes the holder's pod, and requires that the agent's log tells of the hold and its
// end, but not of the requests that the end has interrupted.
func agentLog(s *space.Space, pod string) {
	s.Helper()
	_, lines, end := begin(s, "logs", "-f", pod, "-c", api.AgentContainer)
	defer end()
	require.True(s, lines.Scan(), "the agent logs nothing")
	kubectl.Must(s, "", "delete", "pod", pod, "--wait=false")
	all := []string{lines.Text()}
	for lines.Scan() {
		all = append(all, lines.Text())
	}
	log := strings.Join(all, "\n")
	assert.Contains(s, log, `"msg":"acquired"`)
	assert.Contains(s, log, `"msg":"released"`)
	assert.NotContains(s, log, `"level":"DEBUG"`)
	assert.NotContains(s, log, "context canceled")
	s.Remark("%s", log)
}

// begin starts kubectl, and returns its standard input, a scanner of its output, and a function
// that ends kubectl. If that function is not called, kubectl ends after a timeout.
func begin(s *space.Space, args ...string) (stdin io.Writer, lines *bufio.Scanner, end func()) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), space.StartTimeout)
	cmd := kubectl.Command(ctx, s.Namespace, args...)
	stdin, err := cmd.StdinPipe()
	require.NoError(s, err)
	out, err := cmd.StdoutPipe()
	require.NoError(s, err)
	require.NoError(s, cmd.Start())
	return stdin, bufio.NewScanner(out), func() { cancel(); _ = cmd.Wait() }
}

// forwarded returns the name of the pod that answers through a port-forward, or the problem.
func forwarded(s *space.Space, pod *corev1.Pod) (name, problem string) {
	s.Helper()
	_, lines, end := begin(s, "port-forward", pod.Name, ":8080", "--address=127.0.0.1")
	defer end()
	if !lines.Scan() {
		return "", "kubectl does not say where"
	}
	_, address, _ := strings.Cut(lines.Text(), "from ")
	address, _, _ = strings.Cut(address, " ")
	ctx, cancel := context.WithTimeout(s.Context(), space.Soon)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", nil)
	require.NoError(s, err)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", lines.Text() + ": " + err.Error()
	}
	defer response.Body.Close()
	var meta record.Meta
	if err := json.NewDecoder(response.Body).Decode(&meta); err != nil {
		return "", err.Error()
	}
	return meta.Pod, ""
}

// attach writes to the application's standard input by kubectl attach, and waits for
// the echo.
func attach(s *space.Space, pod string) {
	s.Helper()
	stdin, lines, end := begin(s, "attach", "-i", pod)
	typing, stop := context.WithCancel(s.Context())
	typist := make(chan struct{})
	defer func() { stop(); end(); <-typist }()
	go func() {
		defer close(typist)
		// The stream of the application's output may open later than the input, and
		// earlier output is lost. So the test writes its line again each second.
		again := time.NewTicker(time.Second)
		defer again.Stop()
		for {
			if _, err := io.WriteString(stdin, "hello in there\n"); err != nil {
				return // the stream has ended
			}
			select {
			case <-again.C:
			case <-typing.Done():
				return
			}
		}
	}()
	for lines.Scan() {
		if strings.Contains(lines.Text(), "hello in there") {
			return
		}
	}
	assert.Fail(s, "nothing came back")
}
