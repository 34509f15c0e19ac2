// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/metaparticle-io/metaparticle/agent/barrier"
	"github.com/metaparticle-io/metaparticle/agent/host"
	"github.com/metaparticle-io/metaparticle/api"
)

// errWaited means that the pod has waited at the barrier for the longest time that a person
// permits.
var errWaited = errors.New("the pod has waited for as long as " + api.WaitAtMostAnnotation + " permits")

// barrierCommand runs in an init container of a pod with a barrier, and ends with code 0 once
// the barrier is open.
func barrierCommand(ctx context.Context, args []string) (int, error) {
	a, err := api.ParseBarrierArgs(args)
	if err != nil {
		return api.ExitUsage, err
	}
	saveMemory()
	stopped, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	client, err := newClient(os.Getenv(api.PodNamespaceEnv), a.Credentials)
	if err != nil {
		return 1, err
	}
	defer client.Close()
	log := newLines(os.Stderr)
	// An error of the method "flush" is ignored, because no log is left that could report the
	// error.
	defer func() { _ = log.flush() }()
	waiting := stopped
	if a.WaitAtMost > 0 {
		var cancel context.CancelFunc
		waiting, cancel = context.WithTimeoutCause(stopped, a.WaitAtMost, errWaited)
		defer cancel()
	}
	err = barrier.Run(waiting, barrier.Config{
		API: client, Leases: a.Leases(), Duration: a.LeaseDuration, Clock: host.Now, Log: log, Random: newRandom(),
		PodName: os.Getenv(api.PodNameEnv), PodUID: os.Getenv(api.PodUIDEnv),
	})
	switch {
	case errors.Is(err, errWaited):
		return api.ExitWaited, fmt.Errorf("barrier %s: %w", a.Barrier, errWaited)
	case stopped.Err() != nil && err != nil:
		return exitTerminated, nil
	case err != nil:
		return 1, err
	}
	return 0, nil
}
