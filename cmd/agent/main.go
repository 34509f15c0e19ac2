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
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/probe"
	"github.com/metaparticle-io/metaparticle/agent/shim"
	"github.com/metaparticle-io/metaparticle/api"
)

// commands has the function of each role.
var commands = shim.Roles{
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
	return shim.HandleRole(ctx, args, func(ctx context.Context, get api.HTTPGetAction, podIP string) error {
		return probe.SendHook(ctx, get, podIP, version)
	})
}

func main() {
	// The table of a memory profile would take a megabyte and a half, and no program reads the
	// profile.
	runtime.MemProfileRate = 0
	os.Exit(commands.Run(context.Background(), os.Args[1:], "agent run|install|handle|turn|wait|after|barrier|api|ready|yield [flags]"))
}

// version is the version of the binary, which tools/images sets at the build.
var version = "dev"

// newClient returns a client of the API server. The client reads its token and the CA from the
// directory "credentials".
func newClient(namespace, credentials string) (*kube.Client, error) {
	return kube.New(kube.Config{
		Namespace: namespace,
		Host:      os.Getenv("KUBERNETES_SERVICE_HOST"),
		Port:      os.Getenv("KUBERNETES_SERVICE_PORT"),
		TokenFile: filepath.Join(credentials, "token"),
		CAFile:    filepath.Join(credentials, "ca.crt"),
		Version:   version,
	})
}

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
