// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/metaparticle-io/metaparticle/agent/after"
	"github.com/metaparticle-io/metaparticle/api"
)

// afterCommand runs in an init container of a pod with conditions, and ends with code 0 once
// each condition has been met.
func afterCommand(ctx context.Context, args []string) (int, error) {
	a, err := api.ParseConditionArgs(args)
	if err != nil {
		return api.ExitUsage, err
	}
	saveMemory()
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
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
	err = after.Run(ctx, after.Config{
		API: client, Conditions: a.Conditions, Log: log, Random: newRandom(),
		PodName: os.Getenv(api.PodNameEnv), PodUID: os.Getenv(api.PodUIDEnv),
	})
	switch {
	case ctx.Err() != nil && err != nil:
		return exitTerminated, nil
	case err != nil:
		return 1, err
	}
	return 0, nil
}
