// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"os/exec"
	"strings"
	"time"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

// kubectlTimeout is longer than any rollout is waited for. A stream to a container
// may hang; the test that waits for it fails then, and not the whole run an hour
// later.
const kubectlTimeout = 3 * time.Minute

// kubectl runs the real kubectl, as a user does, in the test's namespace.
// What a user sees is both streams.
func (s *space) kubectl(stdin string, args ...string) (output string, err error) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), kubectlTimeout)
	defer cancel()
	cmd := kubectl(ctx, s.name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	return out.String(), err
}

// kubectl is a command of the test cluster's own kubectl, or of the user's.
func kubectl(ctx context.Context, namespace string, args ...string) *exec.Cmd {
	args = append([]string{"--kubeconfig", cluster.kubeconfig, "--namespace", namespace}, args...)
	if cluster.lab != nil {
		return cluster.lab.Kubectl(ctx, args...)
	}
	return exec.CommandContext(ctx, "kubectl", args...)
}

// mustKubectl is kubectl where it has to succeed.
func (s *space) mustKubectl(stdin string, args ...string) string {
	s.Helper()
	out, err := s.kubectl(stdin, args...)
	require.NoError(s, err, out)
	return out
}

// manifest is what a user would have in a file.
func (s *space) manifest(object any) string {
	data, err := yaml.Marshal(object)
	require.NoError(s, err)
	return string(data)
}
