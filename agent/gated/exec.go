// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package gated

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/shim"
	"github.com/metaparticle-io/metaparticle/api"
)

// Exec runs the shim until its application has ended, and returns the exit code.
func Exec(_ context.Context, args []string) (int, error) {
	// The memory of the shim counts against the application's limit. So the shim collects
	// garbage early, and has few threads. Two threads run Go code, because one of them can hang
	// in the application's exec, and the watchdog must go on.
	debug.SetGCPercent(20)
	runtime.GOMAXPROCS(2)

	cfg, err := ShimConfig(args)
	if err != nil {
		return api.ExitUsage, err
	}
	return shim.Exec(cfg), nil
}

// ShimConfig returns the settings that the arguments of a shim contain.
func ShimConfig(args []string) (shim.Config, error) {
	e, child, err := api.ParseExecArgs(args)
	if err != nil {
		return shim.Config{}, err
	}
	image, err := onThisPlatform(e.Platforms)
	if err != nil {
		return shim.Config{}, err
	}
	cfg := shim.Config{
		Container: e.Container,
		Socket:    e.Socket,
		Command:   append(image.Command, child...),
		// For the shim, the values "restart" and "end" of OnLoss mean the same: the shim ends
		// the container. The kubelet decides whether the container starts again.
		StandBy:    e.OnLoss == api.OnLossStandby,
		MaySkip:    e.OnBusy == api.OnBusySkip || e.MayBeDone,
		MayEndWait: e.WaitAtMost > 0,
		Records:    e.MayBeDone,
		Unbounded:  e.Unbounded,
		Env:        func(slots []gate.SlotToken) []string { return environment(slots, e.Shards) },
		Grace:      e.Grace,
	}
	if cfg.StopSignal, err = stopSignal(cmp.Or(e.StopSignal, image.StopSignal, "SIGTERM")); err != nil {
		return cfg, err
	}
	if cfg.PostStart, err = hook("post-start", e.PostStart); err != nil {
		return cfg, err
	}
	if cfg.PreStop, err = hook("pre-stop", e.PreStop); err != nil {
		return cfg, err
	}
	cfg.HTTP = sendsHTTP(e.PostStart) || sendsHTTP(e.PreStop)
	if cfg.Container == "" || len(cfg.Command) == 0 {
		return cfg, errors.New("usage: agent exec -container NAME [flags] -- COMMAND [ARGUMENTS]")
	}
	return cfg, nil
}

// onThisPlatform returns the image's command for this architecture.
func onThisPlatform(all api.Platforms) (api.PlatformCommand, error) {
	image, ok := all.For(runtime.GOARCH)
	if !ok && all != nil {
		return api.PlatformCommand{}, fmt.Errorf("agent exec: the image has no command for %s", runtime.GOARCH)
	}
	return image, nil
}

// sendsHTTP reports whether the hook sends an HTTP request. The hook may be nil.
func sendsHTTP(h *api.Handler) bool { return h != nil && h.HTTPGet != nil }

// hook returns the command of a hook. The command is that of the container, or a program in the role
// "handle". A hook that sends an HTTP request needs the program [api.HookProgram] beside this
// program. If the container declares no such hook, the result is nil.
func hook(name string, h *api.Handler) (*shim.Hook, error) {
	switch {
	case h == nil:
		return nil, nil
	case h.Exec != nil && len(h.Exec.Command) == 0:
		return nil, fmt.Errorf("agent exec: -%s: no command", name)
	case h.Exec != nil:
		return &shim.Hook{Command: h.Exec.Command}, nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("agent exec: %w", err)
	}
	if h.HTTPGet != nil {
		self = filepath.Join(filepath.Dir(self), api.HookProgram)
	}
	return &shim.Hook{
		Command: []string{self, api.HandleRole, h.String()},
		Env:     func(podIP string) []string { return []string{api.PodIPEnv + "=" + podIP} },
	}, nil
}

// stopSignal reads an image's STOPSIGNAL or a lifecycle.stopSignal. The signals in
// [api.KeptSignals] are refused.
func stopSignal(s string) (syscall.Signal, error) {
	sig, err := parseSignal(s)
	if slices.ContainsFunc(api.KeptSignals, func(name string) bool {
		kept, _ := parseSignal(name) // each name in the list is a signal
		return kept == sig
	}) {
		return 0, fmt.Errorf("agent exec: -stop-signal %q cannot be passed on: take another", s)
	}
	return sig, err
}

// parseSignal reads a name with or without its prefix (SIGQUIT, QUIT), a number (3), or an
// offset (SIGRTMIN+3, SIGRTMAX-3). Alternative names (SIGCLD, SIGIOT, SIGPOLL) are accepted,
// too.
func parseSignal(s string) (syscall.Signal, error) {
	const rtmin, rtmax = 34, 64 // as container runtimes and glibc count them (for musl, rtmin is 35)
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
	return 0, fmt.Errorf("agent exec: -stop-signal %q is not a signal: name one, such as SIGTERM", s)
}

// environment returns the environment variables that an application gets while its pod holds.
// Without slots, the result is empty, so an application keeps its own variables of the same names.
// The argument "shards" is the number of shards into which the work is divided; zero for other
// claims.
func environment(slots []gate.SlotToken, shards int) []string {
	if len(slots) == 0 {
		return nil
	}
	var names, tokens []string
	for _, s := range slots {
		names, tokens = append(names, s.Slot), append(tokens, s.Token)
	}
	all := []string{
		api.SlotEnv + "=" + strings.Join(names, ","),
		api.FencingTokenEnv + "=" + strings.Join(tokens, ","),
	}
	if shards == 0 {
		return all
	}
	_, shard, _ := api.ReadShard(names[0])
	return append(all, api.ShardEnv+"="+strconv.Itoa(shard), api.ShardsEnv+"="+strconv.Itoa(shards))
}
