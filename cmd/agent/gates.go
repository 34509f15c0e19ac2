// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"

	"github.com/metaparticle-io/metaparticle/agent"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/linux"
	"github.com/metaparticle-io/metaparticle/agent/podgate"
	"github.com/metaparticle-io/metaparticle/agent/shim"
	"github.com/metaparticle-io/metaparticle/api"
)

// opened is an open gate, with the functions that run and close it.
type opened struct {
	agent.Gate
	run   func(ctx context.Context) error
	close func() error
	// shims sends the orders that only shims understand; nil for a gate without shims.
	shims agent.Shims
	// granted reports whether a shim of the container had a grant of the hold; nil for a gate
	// without shims.
	granted func(container, hold string) bool
}

// openGate opens the gate, and may wait until another agent process of the pod has ended. If
// the agent is stopped during that wait, openGate returns neither a gate nor an error.
func (s runSettings) openGate(ctx context.Context, stop <-chan struct{}, log *slog.Logger) (opened, error) {
	if s.Gate == api.GateReadiness {
		g := podgate.NewReadiness(linux.Now)
		return opened{Gate: g, run: g.Run, close: func() error { return nil }}, nil
	}
	ctx, cancel := untilStopped(ctx, stop)
	defer cancel()
	open := s.openShims
	if s.Gate == api.GatePod {
		open = s.openPod
	}
	g, err := open(ctx, stop, log)
	if errors.Is(err, context.Canceled) {
		return opened{}, nil
	}
	return g, err
}

func (s runSettings) openShims(ctx context.Context, _ <-chan struct{}, log *slog.Logger) (opened, error) {
	g, err := gate.Listen(ctx, gate.Config{
		Dir: s.RunDir, RequirePID1: true, OwnKernel: s.config.OwnKernel, Unbounded: len(s.config.Slots) == 0,
		InstallHTTP: func() error { return shim.Install(self, filepath.Join(filepath.Dir(s.Install), api.HookProgram)) }, Log: log,
	})
	if err != nil {
		return opened{}, err
	}
	return opened{Gate: g, run: g.Run, close: g.Close, granted: g.Granted, shims: g}, nil
}

func (s runSettings) openPod(ctx context.Context, stop <-chan struct{}, log *slog.Logger) (opened, error) {
	g, err := podgate.OpenPod(ctx, podgate.PodConfig{Dir: s.RunDir, OwnKernel: s.config.OwnKernel, Log: log})
	if err != nil {
		return opened{}, err
	}
	run := func(ctx context.Context) error { return g.Run(ctx, stop) }
	return opened{Gate: g, run: run, close: g.Close}, nil
}
