// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/metaparticle-io/metaparticle/agent/barrier"
	"github.com/metaparticle-io/metaparticle/agent/host"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

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
		err := barrier.Run(ctx, barrier.Config{
			API: client, Leases: a.Leases(), Duration: a.LeaseDuration, Clock: host.Now, Log: log, Random: newRandom(),
			PodName: os.Getenv(api.PodNameEnv), PodUID: os.Getenv(api.PodUIDEnv),
		})
		if errors.Is(err, errWaited) {
			return fmt.Errorf("barrier %s: %w", a.Barrier, errWaited)
		}
		return err
	})
}
