// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/host"
	"github.com/metaparticle-io/metaparticle/agent/local"
	"github.com/metaparticle-io/metaparticle/api"
)

// localIdle is the time for which an idle connection of a program stays open. A program may
// send a heartbeat every 30 s over one connection.
const localIdle = 2 * time.Minute

// mostPrograms bounds the connections to each address of the local API. Each takes about 30 KiB
// of the container's limit of 64 MiB. A new connection beyond the bound is refused, because an
// older connection may keep a hold.
const mostPrograms = 512

// localCommand serves the local API in a sidecar, until the kubelet stops it.
func localCommand(ctx context.Context, args []string) (int, error) {
	a, err := api.ParseLocalArgs(args)
	if err != nil {
		return api.ExitUsage, err
	}
	saveMemory()
	if err := serveLocal(ctx, a, toldToStop()); err != nil {
		return 1, err
	}
	return 0, nil
}

// serveLocal puts the local API together.
func serveLocal(ctx context.Context, a api.LocalArgs, stop <-chan struct{}) error {
	out := newLines(os.Stderr)
	// The error of flush is ignored, because no log is left to report it.
	defer func() { _ = out.flush() }()
	client, err := newClient(os.Getenv(api.PodNamespaceEnv), a.Credentials)
	if err != nil {
		return err
	}
	defer client.Close()
	boot, err := host.BootID()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	leaps := host.NewLeaps()
	defer leaps.Close()
	serves, err := local.New(local.Config{
		PodName: os.Getenv(api.PodNameEnv), PodUID: os.Getenv(api.PodUIDEnv), PodIP: os.Getenv(api.PodIPEnv),
		Claims: a.Claims, LeaseDuration: a.LeaseDuration, BootID: boot, OwnKernel: a.OwnKernel,
		Leases: client, Variables: client, Leaps: leaps.Watch(ctx), Clock: host.Now, Random: newRandom,
		Log: slog.New(slog.NewJSONHandler(out, nil)),
	})
	if err != nil {
		return err
	}
	for _, address := range []string{"127.0.0.1", "::1"} {
		err := listenLocal(ctx, net.JoinHostPort(address, strconv.Itoa(a.Port)), serves.Handler())
		if err != nil && (address == "127.0.0.1" || errors.Is(err, syscall.EADDRINUSE)) {
			return err // any other error means that the pod has no address of IPv6
		}
	}
	go host.Trim(ctx)
	return serves.Run(ctx, stop)
}

// listenLocal serves the local API at the address until ctx ends. A stream stays open for as
// long as the program follows it, so no timeout bounds a whole answer.
func listenLocal(ctx context.Context, address string, handler http.Handler) error {
	var listen net.ListenConfig
	l, err := listen.Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("serve the local API: %w", err)
	}
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: headerTimeout, IdleTimeout: localIdle, MaxHeaderBytes: scrapeHeader,
	}
	(&crowd{most: mostPrograms, refuses: true}).attach(server)
	context.AfterFunc(ctx, func() { server.Close() })
	go func() { _ = server.Serve(l) }()
	return nil
}
