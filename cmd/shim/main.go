// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command shim runs inside gated containers. The agent copies this program into the volume that the
// containers of a pod share. If a hook of the pod sends HTTP requests, the agent also copies its own
// program, because only the agent's program contains package http.
package main

import (
	"context"
	"errors"
	"os"
	"runtime"

	"github.com/metaparticle-io/metaparticle/agent/shim"
	"github.com/metaparticle-io/metaparticle/api"
)

// commands has the function of each role.
var commands = shim.Roles{
	api.ExecRole:   shim.ExecRole,
	api.ProbeRole:  shim.ProbeRole,
	api.HandleRole: handleCommand,
}

func main() {
	// The table of a memory profile would take a megabyte and a half, and no program reads the
	// profile.
	runtime.MemProfileRate = 0
	os.Exit(commands.Run(context.Background(), os.Args[1:], "shim exec|handle|probe [flags]"))
}

// errNoHTTP ends a hook that the shim passes to another program.
var errNoHTTP = errors.New("this program sends no HTTP requests")

func handleCommand(ctx context.Context, args []string) (int, error) {
	return shim.HandleRole(ctx, args, func(context.Context, api.HTTPGetAction, string) error { return errNoHTTP })
}
