// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/metaparticle-io/metaparticle/crowd"
)

// These constants bound the ports for metrics and for probes. Any pod of the cluster may connect to
// these ports, and controller-runtime's own servers have no such bounds.
const (
	// maxPortConnections is far above the number of connections of Prometheus and of a kubelet.
	maxPortConnections = 32
	// maxPortHeader is far above the size of the header of a probe or a scrape.
	maxPortHeader = 4 << 10
	// portGreeting bounds the time for reading a header.
	portGreeting = 2 * time.Second
	// portTime bounds the time for reading a request, and also the time for writing its answer.
	portTime = 10 * time.Second
)

// metricsHandler answers requests for metrics. The handler compresses no answer, because each
// compression in progress would take almost a megabyte.
func metricsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(metrics.Registry, promhttp.HandlerOpts{
		ErrorHandling: promhttp.HTTPErrorOnError, DisableCompression: true,
	}))
	return mux
}

// probesHandler answers the kubelet's probes, with controller-runtime's paths: each check also has a
// path of its own.
func probesHandler(alive, ready map[string]healthz.Checker) http.Handler {
	mux := http.NewServeMux()
	for path, checks := range map[string]map[string]healthz.Checker{"/healthz": alive, "/readyz": ready} {
		handler := http.StripPrefix(path, &healthz.Handler{Checks: checks})
		mux.Handle(path, handler)
		mux.Handle(path+"/", handler)
	}
	return mux
}

// openPort makes the manager serve a handler by plain HTTP, in each replica, before the caches are
// filled. With the address "0" the function does nothing.
func openPort(ctx context.Context, m ctrl.Manager, name, address string, handler http.Handler) error {
	if address == "0" {
		return nil
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen for %s: %w", name, err)
	}
	return m.Add(boundedServer(name, listener, handler))
}

// boundedServer returns a server with the bounds of this file.
func boundedServer(name string, listener net.Listener, handler http.Handler) *manager.Server {
	server := &http.Server{
		Handler: handler, MaxHeaderBytes: maxPortHeader, ReadHeaderTimeout: portGreeting,
		ReadTimeout: portTime, WriteTimeout: portTime, IdleTimeout: idleTime,
	}
	few := &crowd.Crowd{Most: maxPortConnections}
	few.Attach(server)
	return &manager.Server{Name: name, Listener: few.Door(listener), ShutdownTimeout: new(portTime), Server: server}
}

// openPorts opens the ports for metrics and for probes.
func openPorts(ctx context.Context, m ctrl.Manager, s settings, alive, ready map[string]healthz.Checker) error {
	if err := openPort(ctx, m, "metrics", cmp.Or(s.metricsAddress, ":8080"), metricsHandler()); err != nil {
		return err
	}
	return openPort(ctx, m, "probes", cmp.Or(s.healthAddress, "0"), probesHandler(alive, ready))
}
