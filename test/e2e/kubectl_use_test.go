// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/metaparticle-io/metaparticle/test/e2e/record"
)

// What people do with kubectl to a pod, to the one that holds and to one that
// stands by. Nobody names a container: the application's is the default.
//
// compat: pod/exec pod/logs pod/port-forward pod/debug pod/attach pod/default-container carried
func TestKubectlIsUsedOnAHolderAndAStandbyAsOnAnyPod(t *testing.T) {
	needLab(t, "it needs the record")
	t.Parallel()
	s := newSpace(t)
	a := singleton("used")
	a.replicas = 2
	a.args = []string{"-echo"}
	a.edit = func(template *corev1.PodTemplateSpec) { template.Spec.Containers[0].Stdin = true }
	s.deploy(a)
	before := s.awaitRunning(a, handover)
	for _, pod := range s.all(a.name) {
		name := "standby"
		if pod.Name == before.Pod {
			name = "holder"
		}
		t.Run(name+" exec", func(t *testing.T) {
			out, err := s.kubectl("", "exec", pod.Name, "--", "/app", "-run-for=1ms", "-exit-code=7")
			require.Error(t, err)
			assert.Contains(t, out, "exit code 7")
			out = s.mustKubectl("through and back", "exec", "-i", pod.Name, "--", "/app", "-echo")
			assert.Equal(t, "through and back", out, "as kubectl cp does with tar")
		})
		t.Run(name+" logs", func(t *testing.T) {
			out := s.mustKubectl("", "logs", pod.Name)
			assert.NotContains(t, out, `"level"`, "the agent's log is not the default")
			if name == "standby" {
				s.await(startTimeout, "it says what it waits for", func() bool {
					return strings.Contains(s.mustKubectl("", "logs", pod.Name), "metaparticle: standing by: ")
				})
			}
		})
		t.Run(name+" port-forward", func(t *testing.T) { assert.Equal(t, before.Pod, s.forwarded(pod)) })
		t.Run(name+" debug", func(t *testing.T) { s.debug(pod) })
	}
	t.Run("attach", func(t *testing.T) { s.attach(before.Pod) })
	assert.Equal(t, before.ID, s.awaitRunning(a, handover).ID, "none of it has disturbed the application")
	assert.Zero(t, s.restarts(a))
}

// begin runs kubectl until the answer is called; lines is what it says.
func (s *space) begin(args ...string) (stdin io.Writer, lines *bufio.Scanner, end func()) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), startTimeout)
	cmd := kubectl(ctx, s.name, args...)
	stdin, err := cmd.StdinPipe()
	require.NoError(s, err)
	out, err := cmd.StdoutPipe()
	require.NoError(s, err)
	require.NoError(s, cmd.Start())
	return stdin, bufio.NewScanner(out), func() { cancel(); _ = cmd.Wait() }
}

// forwarded is which pod's application answers at the end of a port-forward.
func (s *space) forwarded(pod *corev1.Pod) string {
	s.Helper()
	_, lines, end := s.begin("port-forward", pod.Name, ":8080", "--address=127.0.0.1")
	defer end()
	require.True(s, lines.Scan(), "kubectl says where")
	_, address, _ := strings.Cut(lines.Text(), "from ")
	address, _, _ = strings.Cut(address, " ")
	request, err := http.NewRequestWithContext(s.Context(), http.MethodGet, "http://"+address+"/", nil)
	require.NoError(s, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(s, err, lines.Text())
	defer response.Body.Close()
	var meta record.Meta
	require.NoError(s, json.NewDecoder(response.Body).Decode(&meta))
	return meta.Pod
}

// debug adds an ephemeral container that looks into the application's.
func (s *space) debug(pod *corev1.Pod) {
	s.Helper()
	s.mustKubectl("", "debug", pod.Name, "--image="+image, "--target=app", "--container=look", "--profile=general", "--quiet",
		"--", "/app", "-run-for=1ms", "-exit-code=5")
	s.await(startTimeout, "the ephemeral container came to its end", func() bool {
		for _, status := range s.pod(pod.Name).Status.EphemeralContainerStatuses {
			if ended := status.State.Terminated; status.Name == "look" && ended != nil {
				return ended.ExitCode == 5
			}
		}
		return false
	})
}

// attach types into the application's standard input.
func (s *space) attach(pod string) {
	s.Helper()
	stdin, lines, end := s.begin("attach", "-i", pod)
	defer end()
	_, err := io.WriteString(stdin, "hello in there\n")
	require.NoError(s, err)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "hello in there") {
			return
		}
	}
	assert.Fail(s, "nothing came back")
}
