// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Command shim runs inside gated containers. The agent copies this program into the volume that the
// containers of a pod share. If a hook of the pod sends HTTP requests, the agent also copies its own
// program, because only the agent's program contains package http.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/metaparticle-io/metaparticle/agent/gated"
	"github.com/metaparticle-io/metaparticle/api"
)

// commands has the function of each role. The function returns the exit code, and the error to
// print, if any.
var commands = map[string]func(ctx context.Context, args []string) (int, error){
	api.ExecRole:   execCommand,
	api.ProbeRole:  gated.Probe,
	api.HandleRole: handleCommand,
}

func main() {
	// The table of a memory profile would take a megabyte and a half, and nobody reads the
	// profile.
	runtime.MemProfileRate = 0
	os.Exit(run(context.Background(), os.Args[1:]))
}

func run(ctx context.Context, args []string) int {
	if len(args) == 0 || commands[args[0]] == nil {
		fmt.Fprintln(os.Stderr, "usage: shim exec|handle|probe [flags]")
		return api.ExitUsage
	}
	code, err := commands[args[0]](ctx, args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "metaparticle: %v\n", err)
	}
	return code
}

func execCommand(_ context.Context, args []string) (int, error) {
	return gated.Exec(args, api.HookProgram)
}

// errNoHTTP ends a hook that the shim passes to another program.
var errNoHTTP = errors.New("this program sends no HTTP requests")

func handleCommand(ctx context.Context, args []string) (int, error) {
	return gated.Handle(ctx, args, func(context.Context, api.HTTPGetAction, string) error { return errNoHTTP })
}
