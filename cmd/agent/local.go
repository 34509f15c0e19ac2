// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/host"
	"github.com/metaparticle-io/metaparticle/agent/local"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/crowd"
)

// localIdle bounds the time for which an idle connection of a program stays open. A program that
// sends a heartbeat every 30 s can use the same connection each time.
const localIdle = 2 * time.Minute

// mostPrograms bounds the connections to the port of the local API, and separately the connections
// to the socket of the local API. Each connection takes about 30 KiB of the container's memory
// limit of 64 MiB. The server refuses a new connection beyond the bound, because a program can keep
// a hold by an older connection.
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

// serveLocal serves the local API until stop is closed, or until ctx ends.
func serveLocal(ctx context.Context, a api.LocalArgs, stop <-chan struct{}) error {
	log, out := newLog(os.Stderr)
	// An error of the method "flush" is ignored, because no log is left that could report the
	// error.
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
	shims, err := openLeash(ctx, a, stop, boot, log)
	switch {
	case errors.Is(err, context.Canceled):
		return nil
	case err != nil:
		return err
	}
	restarted, err := servedBefore(a)
	if err != nil {
		return errors.Join(err, shims.close())
	}
	var boots []string
	if dir := volumeOf(a); dir != "" {
		boots = noteBoot(dir, boot, log)
	}
	leaps := host.NewLeaps()
	defer leaps.Close()
	serves, err := local.New(local.Config{
		PodName: os.Getenv(api.PodNameEnv), PodUID: os.Getenv(api.PodUIDEnv), PodIP: os.Getenv(api.PodIPEnv),
		Claims: a.Claims, LeaseDuration: a.LeaseDuration, BootID: boot, Boots: boots, OwnKernel: a.OwnKernel, Restarted: restarted,
		Leases: client, Variables: client, Run: a.Run, Barriers: client, Leash: shims.leash, Leaps: leaps.Watch(ctx), Clock: host.Now, Random: newRandom,
		Log: log,
	})
	if err != nil {
		return errors.Join(err, shims.close())
	}
	if err := listenLocal(ctx, a, serves.Handler()); err != nil {
		return errors.Join(fmt.Errorf("serve the local API: %w", err), shims.close())
	}
	go host.Trim(ctx)
	return shims.run(ctx, func(ctx context.Context) error { return serves.Run(ctx, stop) })
}

// servedBefore reports whether an earlier agent process of the pod has served the local API. The
// note of the first process is in the agent's volume. Without a volume the result is always false.
func servedBefore(a api.LocalArgs) (bool, error) {
	dir := volumeOf(a)
	if dir == "" {
		return false, nil
	}
	first, err := firstProcess(dir)
	return !first, err
}

// volumeOf returns the directory of the agent's volume, which lives as long as the pod. The volume
// also has the agent's sockets. An agent without any socket has no volume, and the result is empty.
func volumeOf(a api.LocalArgs) string {
	switch {
	case len(a.Containers) > 0:
		return a.RunDir
	case a.Socket != "":
		return filepath.Dir(a.Socket)
	default:
		return ""
	}
}

// anyUser lets programs of any user connect to the socket. Only containers that mount the
// volume can find the socket.
const anyUser = 0o666

// listenLocal serves the local API at its socket and its port until ctx ends. The port opens
// last. So once "agent ready" can connect to the port, a program can connect to the socket, too.
func listenLocal(ctx context.Context, a api.LocalArgs, handler http.Handler) error {
	if a.Socket != "" {
		l, err := host.Socket("unix", a.Socket, anyUser)
		if err != nil {
			return err
		}
		answer(ctx, l, handler, &crowd.Crowd{Most: mostPrograms, Refuses: true})
	}
	if a.Port == 0 {
		return nil
	}
	ofPort := &crowd.Crowd{Most: mostPrograms, Refuses: true}
	for _, address := range []string{"127.0.0.1", "::1"} {
		var listen net.ListenConfig
		l, err := listen.Listen(ctx, "tcp", net.JoinHostPort(address, strconv.Itoa(a.Port)))
		// An error for ::1 other than EADDRINUSE means that the pod has no IPv6 address. The loop
		// ignores that error.
		switch {
		case err == nil:
			answer(ctx, l, handler, ofPort)
		case address == "127.0.0.1" || errors.Is(err, syscall.EADDRINUSE):
			return err
		}
	}
	return nil
}

// answer serves the connections of a listener until ctx ends. The timeouts free the places of
// programs that send no whole request, or read no answer. The handler takes the connection of a
// stream or of a wait from the server, so the timeouts do not bound such an answer. Without a wait,
// a call for eight claims takes up to 80 s, which is less than [localIdle].
func answer(ctx context.Context, l net.Listener, handler http.Handler, bound *crowd.Crowd) {
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: headerTimeout, ReadTimeout: scrapeTimeout, WriteTimeout: localIdle,
		IdleTimeout: localIdle, MaxHeaderBytes: scrapeHeader,
	}
	bound.Attach(server)
	context.AfterFunc(ctx, func() {
		server.Close()
		bound.End()
	})
	go func() { _ = server.Serve(bound.Door(l)) }()
}
