// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package kubectl runs the cluster's own kubectl with the rights of an administrator.
package kubectl

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/metaparticle-io/metaparticle/test/cluster/lab/state"
)

// Command returns a command that runs the cluster's own kubectl with an administrator's rights.
func Command(ctx context.Context, l *state.Lab, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, l.Path("bin", "kubectl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+l.Kubeconfig())
	return cmd
}

// Run runs kubectl with an input. If kubectl fails, the error contains the output.
func Run(ctx context.Context, l *state.Lab, stdin []byte, args ...string) error {
	cmd := Command(ctx, l, args...)
	cmd.Stdin = bytes.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}
