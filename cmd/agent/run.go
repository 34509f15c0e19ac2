// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	crand "crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"

	"github.com/metaparticle-io/metaparticle/agent"
	"github.com/metaparticle-io/metaparticle/agent/forward"
	"github.com/metaparticle-io/metaparticle/agent/gate"
	"github.com/metaparticle-io/metaparticle/agent/kube"
	"github.com/metaparticle-io/metaparticle/agent/standin"
	"github.com/metaparticle-io/metaparticle/api"
)

// runSettings are the flags of the run role; the webhook writes them.
type runSettings struct {
	config      agent.Config
	namespace   string
	runDir      string
	install     string
	credentials string
	listen      string
	gate        api.Gate
	verbose     bool
}

func runCommand(ctx context.Context, args []string) (int, error) {
	s, err := parseRun(args, os.Getenv)
	if err != nil {
		return exitUsage, err
	}
	// It waits most of the time, next to every gated pod: little garbage, and
	// no threads for a parallelism that it does not have.
	debug.SetGCPercent(20)
	runtime.GOMAXPROCS(1)

	// SIGTERM, which a sidecar gets after the application's containers have
	// ended, asks to leave as soon as that is proven. A second one asks no more.
	stop := make(chan struct{})
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-signals
		close(stop)
	}()
	switch err := s.run(ctx, stop); {
	case errors.Is(err, standin.ErrRestart):
		return api.RestartCode, err
	case err != nil:
		return 1, err
	}
	return 0, nil
}

func parseRun(args []string, env func(string) string) (runSettings, error) {
	s := runSettings{namespace: env(api.PodNamespaceEnv)}
	c := &s.config
	c.PodName, c.PodUID, c.PodIP = env(api.PodNameEnv), env(api.PodUIDEnv), env(api.PodIPEnv)
	flags := flag.NewFlagSet("agent run", flag.ContinueOnError)
	slots := flags.String("slots", "", "Leases to hold, comma-separated, in the order of acquisition")
	containers := flags.String("containers", "", "gated containers, comma-separated")
	inits := flags.String("init-containers", "", "gated init containers, comma-separated")
	ports := flags.String("ports", "", "TCP ports to forward to the holder, comma-separated")
	probes := flags.String("probes", "", "probes of the gated containers, by container, as JSON")
	readiness := flags.String("readiness", string(api.ReadinessForward), "how a standby looks: forward or holder")
	flags.StringVar(&c.Workload, "workload", "", "the pod's workload, as Kind/name")
	flags.DurationVar(&c.LeaseDuration, "lease-duration", api.DefaultLeaseDuration, "how long a holder that vanished blocks the others")
	flags.DurationVar(&c.Grace, "grace", agent.DefaultGrace, "what a yield leaves the application to stop in")
	flags.BoolVar(&c.OwnKernel, "own-kernel", false, "the pod may run in a virtual machine of its own: another boot id proves nothing")
	flags.StringVar(&s.runDir, "run", api.RunPath, "directory of the agent's socket, lock and notes")
	flags.StringVar(&s.install, "install", "", "where the binary is copied to, for gated containers; empty: nowhere")
	flags.StringVar(&s.credentials, "credentials", api.CredentialsPath, "directory of the service account's token and the cluster's CA")
	flags.StringVar(&s.listen, "listen", ":"+strconv.Itoa(api.AgentPort), "where /metrics and /healthz are served; empty: nowhere")
	gateName := flags.String("gate", string(api.GateContainer), "what holds the application back: container, pod or readiness")
	flags.BoolVar(&s.verbose, "verbose", false, "log what is of no consequence, too")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	if flags.NArg() > 0 {
		return s, fmt.Errorf("agent run: unexpected arguments %q", flags.Args())
	}
	c.Slots, c.Containers, c.Readiness = list(*slots), list(*containers), api.Readiness(*readiness)
	c.InitContainers = list(*inits)
	if c.Readiness != api.ReadinessForward && c.Readiness != api.ReadinessHolder {
		return s, fmt.Errorf("agent run: -readiness %q", *readiness)
	}
	if *probes != "" {
		if err := json.Unmarshal([]byte(*probes), &c.Probes); err != nil {
			return s, fmt.Errorf("agent run: -probes: %w", err)
		}
	}
	switch s.gate = api.Gate(*gateName); s.gate {
	case api.GateContainer:
	case api.GatePod, api.GateReadiness:
		c.Containers = []string{standin.Container}
		c.KubeletStops = s.gate == api.GatePod
	default:
		return s, fmt.Errorf("agent run: -gate %q", *gateName)
	}
	for _, port := range list(*ports) {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return s, fmt.Errorf("agent run: -ports %q", *ports)
		}
		c.Ports = append(c.Ports, int(n))
	}
	return s, nil
}

func list(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

// run puts the agent together. The first part that ends, ends all.
func (s runSettings) run(ctx context.Context, stop <-chan struct{}) error {
	log, out := s.logger(os.Stderr)
	// What cannot be written now is lost: there is nobody to be told.
	defer func() { _ = out.flush() }()
	if s.gate != api.GateReadiness {
		if err := prepare(s.runDir, s.install); err != nil {
			return err
		}
	}
	c := s.config
	client, err := kube.New(kube.Config{
		Namespace: s.namespace,
		Host:      os.Getenv("KUBERNETES_SERVICE_HOST"),
		Port:      os.Getenv("KUBERNETES_SERVICE_PORT"),
		TokenFile: filepath.Join(s.credentials, "token"),
		CAFile:    filepath.Join(s.credentials, "ca.crt"),
		Version:   version,
	})
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	server, err := s.openGate(ctx, stop, log)
	if server.Gate == nil {
		return err
	}
	var seed [32]byte
	_, _ = crand.Read(seed[:]) // never fails
	c.API, c.Gate, c.Asides, c.Granted = client, server.Gate, server.asides, server.granted
	c.Clock, c.Log, c.Reconnect = gate.Now, log, client.Close
	if s.gate != api.GateContainer {
		// Where there are no shims to tell of it.
		leaps := gate.NewLeaps()
		defer leaps.Close()
		c.Leaps = leaps.Watch(ctx)
	}
	c.Random = rand.NewChaCha8(seed)
	// By itself the runtime waits for a megabyte of garbage. What it then has in
	// use mostly stays so: what is alive is spread over it.
	c.Calm = runtime.GC
	if len(c.Ports) > 0 && c.Readiness == api.ReadinessForward {
		c.Forwarder = forward.New(forward.Config{Ports: c.Ports, Self: []string{c.PodIP}, Hold: c.LeaseDuration})
	}
	if c.BootID, err = gate.BootID(); err != nil {
		return errors.Join(err, server.close())
	}
	a, err := agent.New(c)
	if err != nil {
		return errors.Join(err, server.close())
	}
	s.serve(ctx, a, log)

	yields := make(chan os.Signal, 1)
	signal.Notify(yields, yieldSignal)
	defer signal.Stop(yields)
	go s.passYields(ctx, a, stop, yields)
	go gate.Trim(ctx)

	return agent.Serve(ctx, server.run, func(ctx context.Context) error { return a.Run(ctx, stop) })
}

// passYields asks the agent to yield whenever somebody asks for it, until ctx ends.
func (s runSettings) passYields(ctx context.Context, a *agent.Agent, stop <-chan struct{}, yields <-chan os.Signal) {
	if s.gate != api.GateReadiness {
		stop = nil // there, the end of the application is what counts
	}
	for {
		select {
		case <-stop:
			stop = nil
			a.Yield()
		case <-yields:
			a.Yield()
		case <-ctx.Done():
			return
		}
	}
}

// logger returns a log that holds up nobody, and what it goes through.
func (s runSettings) logger(to io.Writer) (*slog.Logger, *lines) {
	level := slog.LevelInfo
	if s.verbose {
		level = slog.LevelDebug
	}
	out := newLines(to)
	return slog.New(slog.NewJSONHandler(out, &slog.HandlerOptions{Level: level})), out
}
