// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

// Package console shows all slots of a cluster to people, live and read-only.
//
// The console watches Leases, gated pods and the Events of agents, and never polls. Its page
// listens on the loopback of its pod. So the only way to the page is a port-forward, on which
// the API server decides (kubectl metaparticle console).
//
// The console reads no clock of another computer to decide anything. Ages on the page are
// differences to instants that other computers wrote.
//
// The console does not guarantee that the shown slots are current. While the API server does not
// answer, the page shows old slots, and says so.
//
// Rejected: a password in the page's address, which any process of the same user reads from the
// process list; the API server's proxy subresource, by which the pages of all services would share
// one origin.
package console

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"k8s.io/client-go/rest"

	"github.com/metaparticle-io/metaparticle/console/serve"
	"github.com/metaparticle-io/metaparticle/crowd"
)

const (
	// maxHeader bounds the bytes of the header of a request.
	maxHeader = 16 << 10
	// headerTimeout bounds the time to read the header of a request.
	headerTimeout = 5 * time.Second
	// bodyTimeout bounds the time to read a whole request. A stream outlives this timeout, because
	// the request for the stream has no body.
	bodyTimeout = 10 * time.Second
	// answerTimeout bounds the writing of an answer that is no stream. Over a slow link, the
	// largest file of the documentation takes some seconds. A stream sets a deadline for each of
	// its writes.
	answerTimeout = time.Minute
	// idleTimeout bounds the life of a connection without a request.
	idleTimeout = time.Minute
	// probeTimeout bounds each part of a probe: its header, its body, and the answer.
	probeTimeout = 5 * time.Second
	// shutdown bounds the time in which a server ends. The page's streams end immediately when ctx
	// ends.
	shutdown = 2 * time.Second
)

// Options are the addresses, the documentation and the log of the console.
type Options struct {
	// Address is the address of the page, on the loopback.
	Address string
	// Health is the address of /healthz and /readyz, which tell nothing about slots.
	Health string
	// Docs serves the documentation below /docs/, if present.
	Docs http.Handler
	Log  *slog.Logger
}

// Run serves the console until ctx ends.
func Run(ctx context.Context, config *rest.Config, o Options) error {
	page, err := listen(ctx, o.Address)
	if err != nil {
		return err
	}
	health, err := new(net.ListenConfig).Listen(ctx, "tcp", o.Health)
	if err != nil {
		return errors.Join(fmt.Errorf("listen for probes: %w", err), page.Close())
	}
	server := serve.New()
	server.Docs = o.Docs
	w, err := newWatch(config, server.Publish, server.Warn, o.Log)
	if err != nil {
		return errors.Join(err, page.Close(), health.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	parts := []func() error{
		func() error { return w.run(ctx) },
		func() error {
			return serveUntil(ctx, page, maxPageConnections, pageServer(server.Handler()))
		},
		func() error {
			return serveUntil(ctx, health, maxConnections, probeServer(probes(w.synced)))
		},
	}
	ended := make(chan error, len(parts))
	for _, part := range parts {
		go func() { ended <- part() }()
	}
	o.Log.Info("serving the console", "address", page.Addr().String())
	for range parts {
		err = errors.Join(err, <-ended)
		cancel() // when one part ends, all other parts must end, too
	}
	return err
}

const (
	// maxConnections bounds the connections to the port of the probes. Any pod of the cluster may
	// connect. The kubelet needs one connection for each probe.
	maxConnections = 64
	// maxPageConnections bounds the connections to the port of the page. A browser opens at most
	// six connections, of which each tab keeps one for its stream.
	maxPageConnections = 192
)

// listen listens on a loopback address, and refuses every other address. On another address the
// page would be open to all pods.
func listen(ctx context.Context, address string) (net.Listener, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for the page: %w", err)
	}
	if at, ok := listener.Addr().(*net.TCPAddr); !ok || !at.IP.IsLoopback() {
		return nil, errors.Join(fmt.Errorf("the page must listen on the loopback, not on %s", address), listener.Close())
	}
	return listener, nil
}

// pageServer returns the server of the page. A stream of the page does not end, and so replaces
// answerTimeout by deadlines of its own.
func pageServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler: handler, ReadHeaderTimeout: headerTimeout, ReadTimeout: bodyTimeout, WriteTimeout: answerTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeader,
	}
}

// probeServer returns the server that answers the kubelet's probes. Any pod can reach this
// server, so the server closes each connection after one answer.
func probeServer(handler http.Handler) *http.Server {
	server := &http.Server{
		Handler: handler, ReadTimeout: probeTimeout, WriteTimeout: probeTimeout, IdleTimeout: probeTimeout, MaxHeaderBytes: maxHeader,
	}
	server.SetKeepAlivesEnabled(false)
	return server
}

// serveUntil serves at most the given number of connections at once, until ctx ends. All people reach
// the page from one address, that of the port-forward. A new connection has no request yet, so a
// stream never loses its connection to a new one.
func serveUntil(ctx context.Context, listener net.Listener, most int, server *http.Server) error {
	guests := &crowd.Crowd{Most: most}
	guests.Attach(server)
	server.BaseContext = func(net.Listener) context.Context { return ctx }
	var group sync.WaitGroup
	defer group.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group.Go(func() {
		<-ctx.Done()
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdown)
		defer cancel()
		if server.Shutdown(bounded) != nil {
			_ = server.Close()
		}
	})
	if err := server.Serve(guests.Door(listener)); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// probes returns the handler of the kubelet's probes.
func probes(synced func() bool) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !synced() {
			http.Error(w, "the caches are not filled yet", http.StatusServiceUnavailable)
		}
	})
	return mux
}
