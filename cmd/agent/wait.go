// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/standin"
	"github.com/metaparticle-io/metaparticle/api"
)

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
	if standin.Wait(ctx, standin.Socket(*socket)) != nil {
		return exitTerminated, nil
	}
	return 0, nil
}
