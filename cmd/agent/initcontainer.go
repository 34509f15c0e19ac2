// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/linux"
	"github.com/metaparticle-io/metaparticle/agent/podgate"
	"github.com/metaparticle-io/metaparticle/agent/shim"
	"github.com/metaparticle-io/metaparticle/agent/wait"
	"github.com/metaparticle-io/metaparticle/api"
)

// errWaited means that the pod has waited for the longest time that a person permits.
var errWaited = errors.New("the pod has waited for as long as " + api.WaitAtMostAnnotation + " permits")

// runInInitContainer connects to the API server with the credentials, and calls the function "wait",
// whose context ends at a stop signal. The result is the exit code of the init container: 0 once the
// wait has ended without an error.
func runInInitContainer(ctx context.Context, credentials string, wait func(context.Context, *kube.Client, *lines) error) (int, error) {
	saveMemory()
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	client, err := newClient(os.Getenv(api.PodNamespaceEnv), credentials)
	if err != nil {
		return 1, err
	}
	defer client.Close()
	log := newLines(os.Stderr)
	// An error of the method "flush" is ignored, because no log is left that could report the
	// error.
	defer func() { _ = log.flush() }()
	err = wait(ctx, client, log)
	switch {
	case errors.Is(err, errWaited):
		return api.ExitWaited, err
	case ctx.Err() != nil && err != nil:
		return exitTerminated, nil
	case err != nil:
		return 1, err
	}
	return 0, nil
}

// afterCommand runs in an init container of a pod with conditions, and ends with code 0 once
// each condition has been met.
func afterCommand(ctx context.Context, args []string) (int, error) {
	a, err := api.ParseConditionArgs(args)
	if err != nil {
		return api.ExitUsage, err
	}
	return runInInitContainer(ctx, a.Credentials, func(ctx context.Context, client *kube.Client, log *lines) error {
		return wait.Conditions(ctx, wait.Config{
			API: client, Conditions: a.Conditions, Log: log, Random: newRandom(),
			PodName: os.Getenv(api.PodNameEnv), PodUID: os.Getenv(api.PodUIDEnv),
		})
	})
}

// barrierCommand runs in an init container of a pod with a barrier, and ends with code 0 once
// the barrier is open.
func barrierCommand(ctx context.Context, args []string) (int, error) {
	a, err := api.ParseBarrierArgs(args)
	if err != nil {
		return api.ExitUsage, err
	}
	return runInInitContainer(ctx, a.Credentials, func(ctx context.Context, client *kube.Client, log *lines) error {
		if a.WaitAtMost > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeoutCause(ctx, a.WaitAtMost, errWaited)
			defer cancel()
		}
		err := wait.Barrier(ctx, wait.BarrierConfig{
			API: client, Leases: a.Leases(), Duration: a.LeaseDuration, Clock: linux.Now, Log: log, Random: newRandom(),
			PodName: os.Getenv(api.PodNameEnv), PodUID: os.Getenv(api.PodUIDEnv),
		})
		if errors.Is(err, errWaited) {
			return fmt.Errorf("barrier %s: %w", a.Barrier, errWaited)
		}
		return err
	})
}

// waitNotice delays the line in the log which reports that the pod waits. A pod that gets its
// slot earlier logs nothing.
const waitNotice = 10 * time.Second

// exitTerminated is the exit code that a shell reports after SIGTERM.
const exitTerminated = 128 + int(syscall.SIGTERM)

// waitCommand runs in the last init container of a pod with the gate "pod", and ends with code
// 0 once the pod holds the slot. If the wait ends without the slot, the code is exitTerminated.
func waitCommand(ctx context.Context, args []string) (int, error) {
	flags := flag.NewFlagSet("agent wait", flag.ContinueOnError)
	socket := flags.String("socket", api.WaitSocket, "the agent's socket")
	flags.SetOutput(io.Discard) // main prints the error
	if err := flags.Parse(args); err != nil {
		return api.ExitUsage, err
	}
	runtime.GOMAXPROCS(1)
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	notice := time.AfterFunc(waitNotice, func() {
		fmt.Fprintln(os.Stderr, "metaparticle: standing by: the application's containers start when this pod gets the slot")
	})
	defer notice.Stop()
	if podgate.Wait(ctx, podgate.Socket(*socket)) != nil {
		return exitTerminated, nil
	}
	return 0, nil
}

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
	if err := podgate.MoveNote(podgate.Dir(*runDir)); err != nil {
		return 1, err
	}
	return 0, nil
}

// installCommand runs as the postStart hook of the agent's container. The kubelet starts no
// gated container before the hook has ended.
func installCommand(_ context.Context, args []string) (int, error) {
	flags := flag.NewFlagSet("agent install", flag.ContinueOnError)
	to := flags.String("to", api.ShimProgram, "where the program of the shims is copied to")
	runDir := flags.String("run", api.RunPath, "directory of the agent's socket, flock and notes")
	flags.SetOutput(io.Discard) // main prints the error
	if err := flags.Parse(args); err != nil {
		return api.ExitUsage, err
	}
	if err := prepare(*runDir, *to); err != nil {
		return 1, err
	}
	return 0, nil
}

// shimProgram is the name of the shim's program, which lies beside the agent's program in the image.
const shimProgram = "shim"

// self is the file of this process's program.
const self = "/proc/self/exe"

// prepare creates the directories and the program that the gate needs in the shared volume. The
// postStart hook calls prepare, and the kubelet waits for the end of the hook. The agent also
// calls prepare, because a kubelet that restarts before the hook never runs the hook. Two
// concurrent calls do the work only once.
func prepare(runDir, binary string) error {
	if err := shim.OpenDirs(runDir, filepath.Join(runDir, gate.GrantedDir)); err != nil || binary == "" {
		return err
	}
	agent, err := os.Executable()
	if err == nil {
		err = shim.Install(filepath.Join(filepath.Dir(agent), shimProgram), binary)
	}
	if err == nil {
		return nil
	}
	if _, absent := os.Stat(binary); absent != nil {
		return err
	}
	// The program in the volume works, even if the agent has another version. If the agent ended
	// here, the agent would give up a slot.
	fmt.Fprintf(os.Stderr, "metaparticle: goes on with the program that is there: %v\n", err)
	return nil
}
