// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package shim

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/api"
)

// Roles has the function of each role of a program. The function returns the exit code, and the
// error to print, if any.
type Roles map[string]func(ctx context.Context, args []string) (int, error)

// Run runs the role that the first argument names, and returns the exit code. If no role has that
// name, Run prints the usage.
func (r Roles) Run(ctx context.Context, args []string, usage string) int {
	if len(args) == 0 || r[args[0]] == nil {
		fmt.Fprintln(os.Stderr, "usage: "+usage)
		return api.ExitUsage
	}
	code, err := r[args[0]](ctx, args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "metaparticle: %v\n", err)
	}
	return code
}

// ExecRole runs the shim until its application has ended, and returns the exit code.
func ExecRole(_ context.Context, args []string) (int, error) {
	// The memory of the shim counts against the application's limit. So the shim collects
	// garbage early, and has few threads. Two threads run Go code, because one of them can hang
	// in the application's exec, and the watchdog must go on.
	debug.SetGCPercent(20)
	runtime.GOMAXPROCS(2)

	cfg, err := ParseConfig(args)
	if err != nil {
		return api.ExitUsage, err
	}
	return Exec(cfg), nil
}

// ParseConfig returns the settings that the arguments of a shim contain.
func ParseConfig(args []string) (Config, error) {
	e, child, err := api.ParseExecArgs(args)
	if err != nil {
		return Config{}, err
	}
	image, err := onThisPlatform(e.Platforms)
	if err != nil {
		return Config{}, err
	}
	cfg := Config{
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
		Env:        func(slots []api.Token) []string { return environment(slots, e.Shards) },
		Grace:      e.Grace,
	}
	stopSignal := cmp.Or(e.StopSignal, image.StopSignal, "SIGTERM")
	if cfg.StopSignal, err = api.ParseStopSignal(stopSignal); err != nil {
		return cfg, fmt.Errorf("agent exec: -stop-signal %q %w", stopSignal, err)
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
func hook(name string, h *api.Handler) (*Hook, error) {
	switch {
	case h == nil:
		return nil, nil
	case h.Exec != nil && len(h.Exec.Command) == 0:
		return nil, fmt.Errorf("agent exec: -%s: no command", name)
	case h.Exec != nil:
		return &Hook{Command: h.Exec.Command}, nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("agent exec: %w", err)
	}
	if h.HTTPGet != nil {
		self = filepath.Join(filepath.Dir(self), api.HookProgram)
	}
	return &Hook{
		Command: []string{self, api.HandleRole, h.String()},
		Env:     func(podIP string) []string { return []string{api.PodIPEnv + "=" + podIP} },
	}, nil
}

// environment returns the environment variables that an application gets while its pod holds.
// Without slots, the result is empty, so an application keeps its own variables of the same names.
// The argument "shards" is the number of shards into which the work is divided; zero for other
// claims.
func environment(slots []api.Token, shards int) []string {
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

// HTTPHook carries out a hook that sends an HTTP request. The argument "podIP" is the address of the
// pod.
type HTTPHook func(ctx context.Context, get api.HTTPGetAction, podIP string) error

// HandleRole carries out one lifecycle hook that is no command, as the kubelet does in other pods. The
// hook runs in a separate process, so that the shim neither waits for the hook nor needs more memory.
func HandleRole(ctx context.Context, args []string, get HTTPHook) (int, error) {
	var h api.Handler
	if len(args) != 1 {
		return api.ExitUsage, errors.New("usage: agent handle JSON")
	}
	if err := json.Unmarshal([]byte(args[0]), &h); err != nil {
		return api.ExitUsage, fmt.Errorf("agent handle: %w", err)
	}
	if err := handle(ctx, h, get); err != nil {
		fmt.Println(err)
		return 1, nil
	}
	return 0, nil
}

func handle(ctx context.Context, h api.Handler, get HTTPHook) error {
	switch {
	case h.HTTPGet != nil:
		return get(ctx, *h.HTTPGet, os.Getenv(api.PodIPEnv))
	case h.Sleep != nil:
		select {
		case <-time.After(time.Duration(h.Sleep.Seconds) * time.Second):
		case <-ctx.Done():
		}
		return ctx.Err()
	case h.TCPSocket != nil:
		// Kubernetes accepts a tcpSocket hook, but the kubelet has never carried one out. So
		// the hook fails here, as it does in the kubelet.
		return errors.New("invalid handler: tcpSocket")
	}
	return errors.New("invalid handler")
}
