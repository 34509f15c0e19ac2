// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"

	"github.com/metaparticle-io/metaparticle/agent/after"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/api"
)

// afterCommand runs in an init container of a pod with conditions, and ends with code 0 once
// each condition has been met.
func afterCommand(ctx context.Context, args []string) (int, error) {
	a, err := api.ParseConditionArgs(args)
	if err != nil {
		return api.ExitUsage, err
	}
	return runInInitContainer(ctx, a.Credentials, func(ctx context.Context, client *kube.Client, log *lines) error {
		return after.Run(ctx, after.Config{
			API: client, Conditions: a.Conditions, Log: log, Random: newRandom(),
			PodName: os.Getenv(api.PodNameEnv), PodUID: os.Getenv(api.PodUIDEnv),
		})
	})
}
