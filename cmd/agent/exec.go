// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/shim"
	"github.com/metaparticle-io/metaparticle/api"
)

func execCommand(_ context.Context, args []string) (int, error) {
	// Its memory counts in the application's limit, and it does next to
	// nothing: little garbage, few threads. Two, because one may hang in the
	// application's exec, and the watchdog must not.
	debug.SetGCPercent(20)
	runtime.GOMAXPROCS(2)

	cfg, err := execConfig(args)
	if err != nil {
		return exitUsage, err
	}
	return shim.Exec(cfg), nil
}

func execConfig(args []string) (shim.Config, error) {
	flags := flag.NewFlagSet("agent exec", flag.ContinueOnError)
	container := flags.String("container", "", "name of this container")
	socket := flags.String("socket", api.Socket, "the agent's socket")
	onLoss := flags.String("on-loss", string(api.OnLossStandby), "after a lost slot: standby, restart or end")
	stop := flags.String("stop-signal", "", "what asks the child to stop, by name or number; SIGTERM, if nobody says")
	platforms := flags.String("platforms", "", "what the image runs on each architecture, as JSON, before COMMAND")
	grace := flags.Duration("grace", agent.DefaultGrace, "what the application and its preStop hook have to stop in")
	postStart := flags.String("post-start", "", "what to do when the application has started, as JSON")
	preStop := flags.String("pre-stop", "", "what to do before the application is asked to stop, as JSON")
	flags.SetOutput(io.Discard) // the error is shown once
	if err := flags.Parse(args); err != nil {
		return shim.Config{}, err
	}
	image, err := onThisPlatform(*platforms)
	if err != nil {
		return shim.Config{}, err
	}
	cfg := shim.Config{
		Container: *container,
		Socket:    *socket,
		Command:   append(image.Command, flags.Args()...),
		Env:       environment,
		Grace:     *grace,
	}
	switch *onLoss {
	case string(api.OnLossStandby):
		cfg.StandBy = true
	case string(api.OnLossRestart), "end": // the kubelet makes the difference
	default:
		return cfg, fmt.Errorf("agent exec: -on-loss %q", *onLoss)
	}
	if cfg.StopSignal, err = stopSignal(cmp.Or(*stop, image.StopSignal, "SIGTERM")); err != nil {
		return cfg, err
	}
	if cfg.PostStart, err = hook("post-start", *postStart); err != nil {
		return cfg, err
	}
	if cfg.PreStop, err = hook("pre-stop", *preStop); err != nil {
		return cfg, err
	}
	if cfg.Container == "" || len(cfg.Command) == 0 {
		return cfg, errors.New("usage: agent exec -container NAME [flags] -- COMMAND [ARGUMENTS]")
	}
	return cfg, nil
}

// onThisPlatform picks from what an image runs on several.
func onThisPlatform(platforms string) (api.PlatformCommand, error) {
	if platforms == "" {
		return api.PlatformCommand{}, nil
	}
	all, err := api.ParsePlatforms(platforms)
	if err != nil {
		return api.PlatformCommand{}, fmt.Errorf("agent exec: -platforms: %w", err)
	}
	image, ok := all.For(runtime.GOARCH)
	if !ok {
		return api.PlatformCommand{}, fmt.Errorf("agent exec: the image has no command for %s", runtime.GOARCH)
	}
	return image, nil
}

// hook is a command of the container's, or else one of this program's.
func hook(name, text string) (*shim.Hook, error) {
	if text == "" {
		return nil, nil
	}
	var h api.Handler
	if err := json.Unmarshal([]byte(text), &h); err != nil {
		return nil, fmt.Errorf("agent exec: -%s: %w", name, err)
	}
	if h.Exec != nil {
		if len(h.Exec.Command) == 0 {
			return nil, fmt.Errorf("agent exec: -%s: no command", name)
		}
		return &shim.Hook{Command: h.Exec.Command}, nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("agent exec: %w", err)
	}
	return &shim.Hook{
		Command: []string{self, "handle", text},
		Env:     func(podIP string) []string { return []string{api.PodIPEnv + "=" + podIP} },
	}, nil
}

// stopSignal reads what an image's STOPSIGNAL and lifecycle.stopSignal may say. Not
// to be told of a signal is found out here, not when the application is not asked
// to stop: Go's runtime keeps some for itself, and SIGCHLD tells of the child.
func stopSignal(s string) (syscall.Signal, error) {
	sig, err := parseSignal(s)
	if slices.Contains([]syscall.Signal{unix.SIGCHLD, unix.SIGURG, unix.SIGPROF, 32, 33, 34}, sig) {
		return 0, fmt.Errorf("agent exec: -stop-signal %q cannot be passed on: take another", s)
	}
	return sig, err
}

// parseSignal reads SIGQUIT, QUIT or 3, SIGRTMIN+3, SIGRTMAX-3, and the other names
// of some.
func parseSignal(s string) (syscall.Signal, error) {
	const rtmin, rtmax = 34, 64 // as runtimes count them, and glibc (musl has 35)
	if n, err := strconv.ParseUint(s, 10, 8); err == nil && n > 0 && n <= rtmax {
		return syscall.Signal(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	switch name {
	case "RTMIN":
		return rtmin, nil
	case "RTMAX":
		return rtmax, nil
	case "CLD":
		return unix.SIGCHLD, nil
	case "IOT":
		return unix.SIGABRT, nil
	case "POLL":
		return unix.SIGIO, nil
	}
	if sig := unix.SignalNum("SIG" + name); sig != 0 {
		return sig, nil
	}
	if above, ok := strings.CutPrefix(name, "RTMIN+"); ok {
		if n, err := strconv.ParseUint(above, 10, 8); err == nil && rtmin+n <= rtmax {
			return syscall.Signal(rtmin + n), nil
		}
	}
	if below, ok := strings.CutPrefix(name, "RTMAX-"); ok {
		if n, err := strconv.ParseUint(below, 10, 8); err == nil && n <= rtmax-rtmin {
			return syscall.Signal(rtmax - n), nil
		}
	}
	return 0, fmt.Errorf("agent exec: -stop-signal %q", s)
}

// environment is what the application finds in its environment while it holds.
func environment(slots []gate.SlotToken) []string {
	var names, tokens []string
	for _, s := range slots {
		names, tokens = append(names, s.Slot), append(tokens, s.Token)
	}
	return []string{
		api.SlotEnv + "=" + strings.Join(names, ","),
		api.FencingTokenEnv + "=" + strings.Join(tokens, ","),
	}
}
