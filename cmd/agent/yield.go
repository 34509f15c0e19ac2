// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"syscall"
)

// yieldSignal asks an agent to yield: to drain the application with its whole
// grace, to release, and to stand by.
const yieldSignal = syscall.SIGUSR1

// yieldCommand is for a person who wants another pod to hold:
//
//	kubectl exec POD -c metaparticle-agent -- /agent yield
//
// The agent is PID 1 of its container.
func yieldCommand(_ context.Context, args []string) (int, error) {
	flags := flag.NewFlagSet("agent yield", flag.ContinueOnError)
	pid := flags.Int("pid", 1, "process id of the agent")
	flags.SetOutput(io.Discard) // the error is shown once
	if err := flags.Parse(args); err != nil {
		return exitUsage, err
	}
	if err := syscall.Kill(*pid, yieldSignal); err != nil {
		return 1, fmt.Errorf("ask the agent, process %d, to yield: %w", *pid, err)
	}
	return 0, nil
}
