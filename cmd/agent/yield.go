// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/metaparticle-io/metaparticle/api"
)

// yieldSignal makes an agent yield: drain the application with its whole grace, release, and
// stand by.
const yieldSignal = syscall.SIGUSR1

// yieldCommand lets a person request that the pod yields:
//
//	kubectl exec POD -c metaparticle-agent -- /agent yield
func yieldCommand(_ context.Context, args []string) (int, error) {
	flags := flag.NewFlagSet("agent yield", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // main prints the error
	if err := flags.Parse(args); err != nil {
		return api.ExitUsage, err
	}
	pid, err := neighbour("/proc")
	if err == nil {
		err = syscall.Kill(pid, yieldSignal)
	}
	if err != nil {
		return 1, fmt.Errorf("ask the agent to yield: %w", err)
	}
	return 0, nil
}

// neighbour returns the process id of the agent in this container. The agent is PID 1, unless
// the pod's containers share a process namespace, or use that of the node.
func neighbour(proc string) (pid int, err error) {
	here, err := os.Readlink(filepath.Join(proc, "self", "ns", "mnt"))
	if err != nil {
		return 0, err
	}
	found, err := filepath.Glob(filepath.Join(proc, "[1-9]*"))
	if err != nil {
		return 0, err
	}
	for _, dir := range found {
		line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if args := bytes.Split(line, []byte{0}); err != nil || len(args) < 2 || string(args[1]) != api.RunRole {
			continue // the process is not the agent, or has ended
		}
		if there, err := os.Readlink(filepath.Join(dir, "ns", "mnt")); err == nil && there == here {
			return strconv.Atoi(filepath.Base(dir))
		}
	}
	return 0, errors.New("no agent runs in this container: name its container, with kubectl exec -c " + api.AgentContainer)
}
