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

// installCommand runs as the postStart hook of the agent's container. The kubelet starts no
// gated container before the hook has ended.
func installCommand(_ context.Context, args []string) (int, error) {
	flags := flag.NewFlagSet("agent install", flag.ContinueOnError)
	to := flags.String("to", api.ShimProgram, "where the program of the shims is copied to")
	runDir := flags.String("run", api.RunPath, "directory of the agent's socket, flock and notes")
	flags.SetOutput(io.Discard) // main prints the error
	if err := flags.Parse(args); err != nil {
		return api.ExitUsage, err
	}
	if err := prepare(*runDir, *to); err != nil {
		return 1, err
	}
	return 0, nil
}

// shimProgram is the name of the shim's program, which lies beside the agent's program in the image.
const shimProgram = "shim"

// self is the file of this process's program.
const self = "/proc/self/exe"

// prepare creates the directories and the program that the gate needs in the shared volume. The
// postStart hook calls prepare, and the kubelet waits for the end of the hook. The agent also
// calls prepare, because a kubelet that restarts before the hook never runs the hook. Two
// concurrent calls do the work only once.
func prepare(runDir, binary string) error {
	if err := install.Dirs(runDir, filepath.Join(runDir, desk.GrantedDir)); err != nil || binary == "" {
		return err
	}
	agent, err := os.Executable()
	if err == nil {
		err = install.Program(filepath.Join(filepath.Dir(agent), shimProgram), binary)
	}
	if err == nil {
		return nil
	}
	if _, absent := os.Stat(binary); absent != nil {
		return err
	}
	// The program in the volume works, even if the agent has another version. If the agent ended
	// here, the agent would give up a slot.
	fmt.Fprintf(os.Stderr, "metaparticle: goes on with the program that is there: %v\n", err)
	return nil
}
