// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package kubectl

import (
	"bytes"
	"context"
	"os/exec"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/metaparticle-io/metaparticle/test/e2e/harness/cluster"
	"github.com/metaparticle-io/metaparticle/test/e2e/harness/space"
)

// Timeout is longer than the wait for any rollout. If a stream to a container hangs, only one test
// fails at this timeout. Without the timeout all tests would fail an hour later.
const Timeout = 3 * time.Minute

// Run runs kubectl in the test's namespace, and returns standard output and standard
// error together, as a terminal shows them.
func Run(s *space.Space, stdin string, args ...string) (output string, err error) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), Timeout)
	defer cancel()
	cmd := Command(ctx, s.Namespace, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	return out.String(), err
}

// Command returns a command of the test cluster's kubectl. On a cluster of the user's own, the
// command runs the user's kubectl.
func Command(ctx context.Context, namespace string, args ...string) *exec.Cmd {
	args = append([]string{"--kubeconfig", cluster.Kubeconfig, "--namespace", namespace}, args...)
	if cluster.Lab != nil {
		return cluster.Lab.Kubectl(ctx, args...)
	}
	return exec.CommandContext(ctx, "kubectl", args...)
}

// Must runs kubectl and fails the test if kubectl fails.
func Must(s *space.Space, stdin string, args ...string) string {
	s.Helper()
	out, err := Run(s, stdin, args...)
	require.NoError(s, err, out)
	return out
}

// Manifest returns an object as the YAML that a user would have in a file.
func Manifest(s *space.Space, object any) string {
	data, err := yaml.Marshal(object)
	require.NoError(s, err)
	return string(data)
}

// Debug adds an ephemeral container to the application's pod, and waits until this container has
// ended with code 5.
func Debug(s *space.Space, pod *corev1.Pod) {
	s.Helper()
	Must(s, "", "debug", pod.Name, "--image="+cluster.Image, "--target=app", "--container=look", "--profile=general", "--quiet",
		"--", "/app", "-run-for=1ms", "-exit-code=5")
	s.Await(space.StartTimeout, "the ephemeral container came to its end", func() bool {
		for _, status := range s.Pod(pod.Name).Status.EphemeralContainerStatuses {
			if ended := status.State.Terminated; status.Name == "look" && ended != nil {
				return ended.ExitCode == 5
			}
		}
		return false
	})
}

// RolloutTimeout ends before [Timeout], so that kubectl itself reports the unfinished
// rollout.
const RolloutTimeout = "--timeout=170s"
