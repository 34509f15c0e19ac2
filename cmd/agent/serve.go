// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/metaparticle-io/metaparticle/agent"
	"github.com/metaparticle-io/metaparticle/agent/host"
	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/crowd"
)

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
	if l, err := host.Socket("unix", filepath.Join(s.RunDir, api.ProbeSocketName), 0o777); err != nil {
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
