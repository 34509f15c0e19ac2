// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/metaparticle-io/metaparticle/agent/kube"
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
