// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"os/exec"
	"strings"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

// kubectl runs the real kubectl, as a user does, in the test's namespace.
// What a user sees is both streams.
func (s *space) kubectl(stdin string, args ...string) (output string, err error) {
	s.Helper()
	command := []string{"kubectl"}
	if cluster.lab != nil {
		command = []string{"go", "run", "../cluster", "kubectl"}
		if path := cluster.lab.Dir() + "/bin/kubectl"; executable(path) {
			command = []string{path}
		}
	}
	command = append(command, "--kubeconfig", cluster.kubeconfig, "--namespace", s.name)
	command = append(command, args...)
	cmd := exec.CommandContext(s.Context(), command[0], command[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	return out.String(), err
}

func executable(path string) bool {
	_, err := exec.LookPath(path)
	return err == nil
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
