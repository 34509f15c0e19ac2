// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command agent is the binary that the webhook puts into a pod. Its first argument is a
// role:
//
//   - run holds the slots, in the sidecar.
//   - install copies the binary into the shared volume.
//   - exec is the shim, the parent of a gated container's application.
//   - handle carries out a lifecycle hook for the shim.
//   - probe carries out an exec probe of a gated container.
//   - turn and wait run in init containers of a pod with the gate "pod".
//   - after waits in an init container for the conditions of its pod.
//   - barrier waits in an init container at the barrier of its pod.
//   - api serves the local API, in the sidecar.
//   - ready waits until the local API listens.
//   - yield asks a running agent to hand over.
//
// Package api has the arguments that the webhook writes for these roles.
package main

import (
	"context"
	"os"
	"runtime"

	"github.com/metaparticle-io/metaparticle/agent/gated"
	"github.com/metaparticle-io/metaparticle/api"
)

// commands has the function of each role.
var commands = gated.Roles{
	api.InstallRole: installCommand,
	api.RunRole:     runCommand,
	api.ExecRole:    execCommand,
	api.HandleRole:  handleCommand,
	api.ProbeRole:   gated.Probe,
	api.YieldRole:   yieldCommand,
	api.TurnRole:    turnCommand,
	api.WaitRole:    waitCommand,
	api.AfterRole:   afterCommand,
	api.BarrierRole: barrierCommand,
	api.LocalRole:   localCommand,
	api.ReadyRole:   readyCommand,
}

func execCommand(_ context.Context, args []string) (int, error) { return gated.Exec(args, "") }

func main() {
	// The table of a memory profile would take a megabyte and a half, and nobody reads the
	// profile.
	runtime.MemProfileRate = 0
	os.Exit(commands.Run(context.Background(), os.Args[1:], "agent run|install|exec|handle|probe|turn|wait|after|barrier|api|ready|yield [flags]"))
}
