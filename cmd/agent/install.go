// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"

	"github.com/metaparticle-io/metaparticle/agent/install"
	"github.com/metaparticle-io/metaparticle/api"
)

// grantedDir is where, in the run directory, the gate notes what it granted.
const grantedDir = "granted"

func installCommand(_ context.Context, args []string) (int, error) {
	flags := flag.NewFlagSet("agent install", flag.ContinueOnError)
	to := flags.String("to", api.AgentBinary, "where the binary is copied to")
	runDir := flags.String("run", api.RunPath, "directory of the agent's socket, lock and notes")
	if flags.Parse(args) != nil { // which has said why
		return exitUsage, nil
	}
	if err := install.Install(*to, *runDir, *runDir+"/"+grantedDir); err != nil {
		return 1, err
	}
	return 0, nil
}
