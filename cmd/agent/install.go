// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/metaparticle-io/metaparticle/agent/desk"
	"github.com/metaparticle-io/metaparticle/agent/install"
	"github.com/metaparticle-io/metaparticle/api"
)

// installCommand is the agent's postStart hook: no gated container is started
// before it has ended.
func installCommand(_ context.Context, args []string) (int, error) {
	flags := flag.NewFlagSet("agent install", flag.ContinueOnError)
	to := flags.String("to", api.AgentBinary, "where the binary is copied to")
	runDir := flags.String("run", api.RunPath, "directory of the agent's socket, lock and notes")
	flags.SetOutput(io.Discard) // the error is shown once
	if err := flags.Parse(args); err != nil {
		return api.ExitUsage, err
	}
	if err := prepare(*runDir, *to); err != nil {
		return 1, err
	}
	return 0, nil
}

// prepare makes what the gate needs of the shared volume. The hook does it, for
// which the kubelet waits, and so does the agent: a kubelet that was restarted
// before the hook never runs it. Done by both at once it is done once.
func prepare(runDir, binary string) error {
	if err := install.Dirs(runDir, filepath.Join(runDir, desk.GrantedDir)); err != nil || binary == "" {
		return err
	}
	err := install.Binary(binary)
	if err == nil {
		return nil
	}
	if _, absent := os.Stat(binary); absent != nil {
		return err
	}
	// Another version of it serves, and who ended here would give up a slot.
	fmt.Fprintf(os.Stderr, "metaparticle: goes on with the binary that is there: %v\n", err)
	return nil
}
