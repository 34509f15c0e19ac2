// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command agent is the program that the webhook puts into a pod. Its first argument is a
// role:
//
//   - run holds the slots, in the sidecar.
//   - install copies the shim's program into the shared volume.
//   - handle sends the HTTP request of a lifecycle hook for the shim.
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
	"github.com/metaparticle-io/metaparticle/agent/httphook"
	"github.com/metaparticle-io/metaparticle/api"
)

// commands has the function of each role.
var commands = gated.Roles{
	api.InstallRole: installCommand,
	api.RunRole:     runCommand,
	api.HandleRole:  handleCommand,
	api.YieldRole:   yieldCommand,
	api.TurnRole:    turnCommand,
	api.WaitRole:    waitCommand,
	api.AfterRole:   afterCommand,
	api.BarrierRole: barrierCommand,
	api.LocalRole:   localCommand,
	api.ReadyRole:   readyCommand,
}

// handleCommand carries out one lifecycle hook that sends an HTTP request. The shim's program carries
// out all other hooks.
func handleCommand(ctx context.Context, args []string) (int, error) {
	return gated.Handle(ctx, args, func(ctx context.Context, get api.HTTPGetAction, podIP string) error {
		return httphook.Send(ctx, get, podIP, version)
	})
}

func main() {
	// The table of a memory profile would take a megabyte and a half, and no program reads the
	// profile.
	runtime.MemProfileRate = 0
	os.Exit(commands.Run(context.Background(), os.Args[1:], "agent run|install|handle|turn|wait|after|barrier|api|ready|yield [flags]"))
}
