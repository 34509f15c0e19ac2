// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/metaparticle-io/metaparticle/crowd"
)

const (
	// callTime is the timeoutSeconds of the webhook's configuration. The API server gives
	// up a call after that time.
	callTime = 10 * time.Second
	// greetingTime bounds the TLS handshake and the header of a call. Both take
	// milliseconds. The other half of the call's time is for the body.
	greetingTime = callTime / 2
	// idleTime bounds the time for which the server keeps an idle connection. The API server's
	// client keeps an idle connection for the same time.
	idleTime = 90 * time.Second
	// maxHeader is far above the size of the header of the API server's calls, about 1 KiB.
	maxHeader = 16 << 10
	// maxConnections is far above the number of connections of a few API servers. This number of
	// idle connections takes about 40 MiB, less than a tenth of the webhook's memory limit.
	maxConnections = 1000
)

// shutdown bounds the time in which the calls in flight can end when this replica ends. Each call
// ends sooner: each call began earlier, and the API server gives up a call after [callTime].
const shutdown = 10 * time.Second

// expires is a gauge of the Unix time, in seconds, at which the server's certificate expires.
var expires = prometheus.NewGauge(prometheus.GaugeOpts{
	Name: "metaparticle_certificate_expires_timestamp_seconds",
	Help: "Unix time at which the certificate that this replica uses expires.",
})

func init() { metrics.Registry.MustRegister(expires) }

var (
	errNotStarted     = errors.New("the server does not listen yet")
	errNoCertificates = errors.New("no certificate in it")
)

// callServer answers the API server's calls. Every pod of the cluster may call as well. So
// callServer cuts slow callers off. If a client CA is set, callServer also refuses callers
// without a certificate.
type callServer struct {
	// Server registers the handlers, and counts their calls.
	webhook.Server
	mux      *http.ServeMux
	port     int
	certDir  string
	clientCA string

	greeting, call time.Duration
	maxConnections int
	listens        atomic.Bool
}

func newCallServer(s settings) *callServer {
	mux := http.NewServeMux()
	return &callServer{
		Server: webhook.NewServer(webhook.Options{WebhookMux: mux}), mux: mux,
		port: s.port, certDir: s.certDir, clientCA: s.clientCA,
		greeting: greetingTime, call: callTime, maxConnections: maxConnections,
	}
}

// Start implements [webhook.Server].
func (s *callServer) Start(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort("", strconv.Itoa(s.port)))
	if err != nil {
		return fmt.Errorf("listen for the API server: %w", err)
	}
	return s.serve(ctx, listener)
}

// StartedChecker implements [webhook.Server].
func (s *callServer) StartedChecker() healthz.Checker {
	return func(*http.Request) error {
		if !s.listens.Load() {
			return errNotStarted
		}
		return nil
	}
}

// serve answers calls until the context ends, and then completes the calls in flight.
func (s *callServer) serve(ctx context.Context, listener net.Listener) error {
	defer listener.Close()
	config, err := s.tls(ctx)
	if err != nil {
		return err
	}
	answering := &http.Server{
		Handler:           s.mux,
		ReadHeaderTimeout: s.greeting,
		ReadTimeout:       s.call,
		WriteTimeout:      s.call,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	callers := &crowd.Crowd{Most: s.maxConnections}
	callers.Attach(answering)
	ended := make(chan error, 1)
	go func() {
		ended <- answering.Serve(tls.NewListener(callers.Door(listener), config))
	}()
	s.listens.Store(true)
	select {
	case err := <-ended:
		return fmt.Errorf("serve the API server: %w", err)
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdown)
	defer cancel()
	if err := answering.Shutdown(last); err != nil {
		return fmt.Errorf("wait for calls in flight: %w", err)
	}
	return nil
}

// tls reads the certificate, and follows its changes until the context ends.
func (s *callServer) tls(ctx context.Context) (*tls.Config, error) {
	watcher, err := certwatcher.New(filepath.Join(s.certDir, "tls.crt"), filepath.Join(s.certDir, "tls.key"))
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	watcher.RegisterCallback(func(c tls.Certificate) { expires.Set(float64(c.Leaf.NotAfter.Unix())) })
	go func() { _ = watcher.Start(ctx) }() // if the watcher fails, the last certificate stays in use
	// The API server does not request HTTP/2. With HTTP/2 one connection could make many
	// calls at once, so the server offers only HTTP/1.1.
	config := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, GetCertificate: watcher.GetCertificate}
	if s.clientCA == "" {
		return config, nil
	}
	if _, err := certificates(s.clientCA); err != nil {
		return nil, err
	}
	return &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		// The file of the client CA may change, so the server reads the file for each connection.
		// If the file has no certificate, the server answers no caller.
		pool, err := certificates(s.clientCA)
		if err != nil {
			return nil, err
		}
		strict := config.Clone()
		strict.ClientCAs, strict.ClientAuth = pool, tls.RequireAndVerifyClientCert
		return strict, nil
	}}, nil
}

func certificates(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read client CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("client CA %s: %w", file, errNoCertificates)
	}
	return pool, nil
}
