// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"io"

	"github.com/metaparticle-io/metaparticle/agent/standin"
	"github.com/metaparticle-io/metaparticle/api"
)

// turnCommand renames the note "let-start" to "let-start.before". The command runs in an init
// container before the agent's container, each time that all containers of a pod with the gate
// "pod" start. So the agent can tell a restart of all containers from a restart of itself alone.
func turnCommand(_ context.Context, args []string) (int, error) {
	flags := flag.NewFlagSet("agent turn", flag.ContinueOnError)
	runDir := flags.String("run", api.RunPath, "directory of the agent's socket, flock and notes")
	flags.SetOutput(io.Discard) // main prints the error
	if err := flags.Parse(args); err != nil {
		return api.ExitUsage, err
	}
	if err := standin.MoveNote(standin.Dir(*runDir)); err != nil {
		return 1, err
	}
	return 0, nil
}
