// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/metaparticle-io/metaparticle/agent"
	"github.com/metaparticle-io/metaparticle/agent/linux"
	"github.com/metaparticle-io/metaparticle/agent/podgate"
	"github.com/metaparticle-io/metaparticle/agent/proxy"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/crowd"
)

// runSettings has the arguments of the role "run", and the settings that follow from them and
// from the environment.
type runSettings struct {
	api.RunArgs
	namespace string
	config    agent.Config
}

func runCommand(ctx context.Context, args []string) (int, error) {
	s, err := parseRun(args, os.Getenv)
	if err != nil {
		return api.ExitUsage, err
	}
	saveMemory()
	switch err := s.run(ctx, toldToStop()); {
	case errors.Is(err, podgate.ErrRestart):
		return api.RestartCode, err
	case err != nil:
		return 1, err
	}
	return 0, nil
}

func parseRun(args []string, env func(string) string) (runSettings, error) {
	r, err := api.ParseRunArgs(args)
	need, start := r.Need()
	c := agent.Config{
		Pod: agent.Pod{
			PodName: env(api.PodNameEnv), PodUID: env(api.PodUIDEnv), PodIP: env(api.PodIPEnv),
			Workload: r.Workload, Job: r.Job, Revision: r.Revision, MinReady: r.MinReady, ReplacesUnready: r.ReplacesUnready,
			Containers: r.Containers, InitContainers: r.InitContainers, Grace: r.Grace, Probes: r.Probes, Ports: r.Ports,
			OwnKernel: r.OwnKernel, Ends: r.Ends,
		},
		Claims: agent.Claims{
			Need: need, StartSlots: start, Settings: r.Settings, EndpointDelay: r.EndpointDelay,
			Preferred: prefers(r.Prefer, env(api.PreferEnv)),
		},
	}
	if r.Gate != api.GateContainer {
		c.Containers = []string{podgate.Container}
		c.KubeletStops = r.Gate == api.GatePod
	}
	return runSettings{RunArgs: r, namespace: env(api.PodNamespaceEnv), config: c}, err
}

// run runs all parts of the agent. When one part ends, all parts end.
func (s runSettings) run(ctx context.Context, stop <-chan struct{}) error {
	log, out := newLog(os.Stderr)
	// An error of the method "flush" is ignored, because no log is left that could report the
	// error.
	defer func() { _ = out.flush() }()
	if s.Gate != api.GateReadiness {
		if err := prepare(s.RunDir, s.Install); err != nil {
			return err
		}
	}
	c := s.config
	client, err := newClient(s.namespace, s.Credentials)
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
	c.API, c.Gate, c.Shims, c.Granted = client, server.Gate, server.shims, server.granted
	if s.Gate != api.GateReadiness {
		if c.First, err = firstProcess(s.RunDir); err != nil {
			return errors.Join(err, server.close())
		}
	}
	if c.OnBusy == api.OnBusySkip {
		note := courseNote(s.RunDir)
		c.Course, c.NoteCourse = note.read(), note.write
	}
	c.Clock, c.Log, c.Reconnect = linux.Now, log, client.Close
	leaps := linux.NewLeaps()
	defer leaps.Close()
	c.Leaps, c.Ahead = leaps.Watch(ctx), linux.Ahead
	c.Random = newRandom()
	// By itself, the Go runtime collects garbage only after a megabyte of new objects. Most of that
	// megabyte would stay in use, because living objects are spread over its pages. So the agent
	// also collects garbage after each burst of requests.
	c.Idle = runtime.GC
	if len(c.Ports) > 0 && c.Readiness == api.ReadinessForward {
		c.Forwarder = proxy.New(forwarding(c, os.Environ()))
	}
	c.Contact, c.Ask = contactOf(c, s.Listen), askPod
	if c.BootID, err = linux.BootID(); err != nil {
		return errors.Join(err, server.close())
	}
	if s.Gate != api.GateReadiness {
		c.Boots = noteBoot(s.RunDir, c.BootID, log)
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
	go linux.Trim(ctx)

	return agent.Serve(ctx, server.run, func(ctx context.Context) error { return a.Run(ctx, stop) })
}

// forwarding returns the settings of a standby that forwards. The kubelet gives each container the
// cluster IPs of the Services that exist at the start of the pod. A Service leads back to its own pods.
// So if a forged Lease names such an address, a connection would run in circles through the standbys.
// The API server's address can be that of a node, which is also the address of pods on the host network.
func forwarding(c agent.Config, environment []string) proxy.Config {
	self := []string{c.PodIP}
	for _, variable := range environment {
		if name, value, _ := strings.Cut(variable, "="); strings.HasSuffix(name, "_SERVICE_HOST") && name != "KUBERNETES_SERVICE_HOST" {
			self = append(self, value)
		}
	}
	config := proxy.Config{Self: self, Wait: c.LeaseDuration}
	for _, p := range c.Ports {
		switch {
		case p.UDP:
			config.Datagrams = append(config.Datagrams, p.Number)
		case p.Probed:
			config.Spare = append(config.Spare, p.Number)
		default:
			config.Ports = append(config.Ports, p.Number)
		}
	}
	return config
}

// prefers returns what a preference means for a pod whose label has the value.
func prefers(p api.Preference, value string) agent.Prefers {
	switch {
	case p == (api.Preference{}):
		return agent.PrefersNobody
	case value == p.Value:
		return agent.PrefersSelf
	}
	return agent.PrefersOthers
}

// passYields passes each request to yield on to the agent, until ctx ends. With the gate
// "readiness", a stop signal counts as a request to yield, too.
func (s runSettings) passYields(ctx context.Context, a *agent.Agent, stop <-chan struct{}, yields <-chan os.Signal) {
	if s.Gate != api.GateReadiness {
		stop = nil // with other gates, the agent waits for the end of the application
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

// A scrape gets one small answer, for which a few seconds are enough. These timeouts also bound
// how long a silent peer keeps its connection. The handler of a probe extends the timeout for its
// own answer.
const (
	scrapeTimeout = 10 * time.Second
	// headerTimeout bounds the time until the header has arrived. A peer sends these few
	// hundred bytes as soon as it has connected. One packet can be lost: TCP sends it again
	// after a second.
	headerTimeout = 2 * time.Second
	scrapeHeader  = 4 << 10
)

// serve answers on the agent's port, and on the socket of exec probes, until ctx ends. If serve
// fails, metrics and probes are missing, but the slot is safe.
func (s runSettings) serve(ctx context.Context, a *agent.Agent, log *slog.Logger) {
	if s.Listen != "" {
		mux := http.NewServeMux()
		mux.Handle("/", a.Metrics().Handler())
		mux.Handle("/probe/", a.Probes())
		mux.Handle("POST "+supportPath, answerer(a.Answer))
		// The port can be in use, because an application may listen on any port.
		var listen net.ListenConfig
		if l, err := listen.Listen(ctx, "tcp", s.Listen); err != nil {
			log.Error("no metrics, nor answers to probes", "err", err)
		} else {
			serveHTTP(ctx, l, mux)
		}
	}
	if len(s.config.Probes) == 0 {
		return
	}
	if l, err := linux.Socket("unix", filepath.Join(s.RunDir, api.ProbeSocketName), 0o777); err != nil {
		log.Warn("no exec probes", "err", err)
	} else {
		serveHTTP(ctx, l, a.ExecProbes())
	}
}

// mostConnections bounds the connections to one of the agent's servers. Any pod of the cluster
// can open connections, and each connection takes memory of the container, whose limit is 64 MiB.
// The kubelet and scrapers need one connection for each request under way.
const mostConnections = 64

func serveHTTP(ctx context.Context, l net.Listener, handler http.Handler) {
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: headerTimeout, ReadTimeout: scrapeTimeout, WriteTimeout: scrapeTimeout,
		IdleTimeout: scrapeTimeout, MaxHeaderBytes: scrapeHeader,
	}
	bound := &crowd.Crowd{Most: mostConnections}
	bound.Attach(server)
	context.AfterFunc(ctx, func() { server.Close() })
	go func() { _ = server.Serve(bound.Door(l)) }()
}
