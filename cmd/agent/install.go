// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"io"

	"github.com/metaparticle-io/metaparticle/agent/install"
	"github.com/metaparticle-io/metaparticle/agent/standin"
	"github.com/metaparticle-io/metaparticle/api"
)

// grantedDir is where, in the run directory, the gate notes what it granted.
const grantedDir = "granted"

func installCommand(_ context.Context, args []string) (int, error) {
	flags := flag.NewFlagSet("agent install", flag.ContinueOnError)
	to := flags.String("to", api.AgentBinary, "where the binary is copied to")
	runDir := flags.String("run", api.RunPath, "directory of the agent's socket, lock and notes")
	gateName := flags.String("gate", string(api.GateContainer), "what holds the application back: container or pod")
	flags.SetOutput(io.Discard) // the error is shown once
	if err := flags.Parse(args); err != nil {
		return exitUsage, err
	}
	if *gateName == string(api.GatePod) {
		// It is the first container of each round of the pod's.
		if err := standin.Turn(*runDir); err != nil {
			return 1, err
		}
	}
	if err := install.Install(*to, *runDir, *runDir+"/"+grantedDir); err != nil {
		return 1, err
	}
	return 0, nil
}
