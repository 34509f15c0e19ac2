// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"

	"github.com/metaparticle-io/metaparticle/agent"
	"github.com/metaparticle-io/metaparticle/agent/desk"
	"github.com/metaparticle-io/metaparticle/agent/host"
	"github.com/metaparticle-io/metaparticle/agent/leash"
	"github.com/metaparticle-io/metaparticle/api"
)

// leashed is the leash of a pod, and the desk of its shims. In a pod without shims both fields are
// nil.
type leashed struct {
	leash *leash.Leash
	desk  *desk.Server
}

// openLeash installs the program of the shims, and opens their socket. In a pod without containers
// that start through shims, openLeash does nothing. openLeash may wait until another agent process
// of the pod has ended. If the agent is stopped during that wait, the error is [context.Canceled].
func openLeash(ctx context.Context, a api.LocalArgs, stop <-chan struct{}, boot string, log *slog.Logger) (leashed, error) {
	if len(a.Containers) == 0 {
		return leashed{}, nil
	}
	ctx, cancel := untilStopped(ctx, stop)
	defer cancel()
	budget, err := api.NewBudget(a.LeaseDuration)
	if err != nil {
		return leashed{}, err
	}
	if err := prepare(a.RunDir, a.Install); err != nil {
		return leashed{}, err
	}
	d, err := desk.Listen(ctx, desk.Config{Dir: a.RunDir, RequirePID1: true, OwnKernel: a.OwnKernel, Log: log})
	if err != nil {
		return leashed{}, err
	}
	return leashed{
		desk:  d,
		leash: leash.New(leash.Config{Gate: d, Budget: budget, BootID: boot, Clock: host.Now, Random: newRandom(), Log: log}),
	}, nil
}

// run runs the desk, the leash and f until one of them ends. In a pod without shims, run runs only
// f.
func (l leashed) run(ctx context.Context, f func(context.Context) error) error {
	if l.leash == nil {
		return f(ctx)
	}
	return agent.Serve(ctx, l.desk.Run, func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go l.leash.Run(ctx)
		return f(ctx)
	})
}

func (l leashed) close() error {
	if l.desk == nil {
		return nil
	}
	return l.desk.Close()
}
