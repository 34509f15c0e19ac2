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
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/metaparticle-io/metaparticle/agent"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/linux"
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
	boot, err := linux.BootID()
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
	leaps := linux.NewLeaps()
	defer leaps.Close()
	serves, err := local.New(local.Config{
		PodName: os.Getenv(api.PodNameEnv), PodUID: os.Getenv(api.PodUIDEnv), PodIP: os.Getenv(api.PodIPEnv),
		Claims: a.Claims, LeaseDuration: a.LeaseDuration, BootID: boot, Boots: boots, OwnKernel: a.OwnKernel, Restarted: restarted,
		Leases: client, Variables: client, Run: a.Run, Barriers: client, Leash: shims.leash, Leaps: leaps.Watch(ctx), Ahead: linux.Ahead, Clock: linux.Now, Random: newRandom,
		Log: log,
	})
	if err != nil {
		return errors.Join(err, shims.close())
	}
	if err := listenLocal(ctx, a, serves.Handler()); err != nil {
		return errors.Join(fmt.Errorf("serve the local API: %w", err), shims.close())
	}
	go linux.Trim(ctx)
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
		l, err := linux.Socket("unix", a.Socket, anyUser)
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

// leashed is the leash of a pod, and the server of its shims. In a pod without shims both fields are
// nil.
type leashed struct {
	leash  *local.Leash
	server *gate.Server
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
	d, err := gate.Listen(ctx, gate.Config{Dir: a.RunDir, RequirePID1: true, OwnKernel: a.OwnKernel, Log: log})
	if err != nil {
		return leashed{}, err
	}
	return leashed{
		server: d,
		leash:  local.NewLeash(local.LeashConfig{Gate: d, Budget: budget, BootID: boot, Clock: linux.Now, Random: newRandom(), Log: log}),
	}, nil
}

// run runs the server, the leash and f until one of them ends. In a pod without shims, run runs only
// f.
func (l leashed) run(ctx context.Context, f func(context.Context) error) error {
	if l.leash == nil {
		return f(ctx)
	}
	return agent.Serve(ctx, l.server.Run, func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go l.leash.Run(ctx)
		return f(ctx)
	})
}

func (l leashed) close() error {
	if l.server == nil {
		return nil
	}
	return l.server.Close()
}

// readyWithin bounds the wait for the local API. The agent opens the port and the socket before
// it sends its first request to the API server. So a longer wait means that another process has
// the port, or that the socket cannot be created.
const readyWithin = 30 * time.Second

// readyAgain is the time between two attempts to connect. A process cannot wait for another
// process to listen on a port or a socket, so this process polls.
const readyAgain = 5 * time.Millisecond

// readyCommand runs as the postStart hook of the local API's sidecar. The kubelet starts no
// further container before the hook has ended, so the program always finds the local API.
func readyCommand(ctx context.Context, args []string) (int, error) {
	network, address := "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(api.LocalPort))
	if len(args) > 0 {
		own, err := strconv.ParseUint(args[0], 10, 16)
		switch {
		case len(args) == 1 && filepath.IsAbs(args[0]):
			network, address = "unix", args[0]
		case err != nil || len(args) > 1:
			return api.ExitUsage, fmt.Errorf("usage: agent %s [PORT | SOCKET]", api.ReadyRole)
		default:
			address = net.JoinHostPort("127.0.0.1", strconv.Itoa(int(own)))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	again := time.NewTicker(readyAgain)
	defer again.Stop()
	for {
		connection, err := new(net.Dialer).DialContext(ctx, network, address)
		if err == nil {
			return 0, connection.Close()
		}
		select {
		case <-ctx.Done():
			return 1, fmt.Errorf("the local API does not listen: %w", err)
		case <-again.C:
		}
	}
}
