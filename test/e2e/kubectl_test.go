// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"os/exec"
	"path/filepath"
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
	command := append(kubectlCommand(), "--namespace", s.name)
	command = append(command, args...)
	ctx, cancel := context.WithTimeout(s.Context(), kubectlTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	return out.String(), err
}

// kubectlCommand is the test cluster's own kubectl, or the user's.
func kubectlCommand() []string {
	kubectl := "kubectl"
	if cluster.lab != nil {
		kubectl = filepath.Join(cluster.lab.Dir(), "bin", kubectl)
	}
	return []string{kubectl, "--kubeconfig", cluster.kubeconfig}
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
