// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"runtime"
	"syscall"
	"time"

	"github.com/metaparticle-io/metaparticle/agent/linux"
)

const (
	// silence bounds the time until the agent notices a cut network path. TCP_USER_TIMEOUT
	// covers data in flight; keepalive covers an idle connection (5 s idle, then three probes a
	// second apart). The shortest lease is 10 s, so the agent still has time for a new
	// connection.
	silence       = 8 * time.Second
	probeIdle     = 5 * time.Second
	probeInterval = time.Second
	probeCount    = 3

	// dialTimeout bounds the time for the connection and the TLS handshake together. The kernel
	// repeats a lost SYN after 1 and 3 s; a server that needs more time counts as unreachable.
	// The context of a request may end the attempt earlier.
	dialTimeout = 5 * time.Second

	// idleTimeout is less than the 90 s after which the API server closes an idle
	// connection, so that no request uses a closing connection.
	idleTimeout = 80 * time.Second

	// headerTimeout bounds the start of a watch, which has no deadline of its own. The API server
	// answers a watch immediately, or after the watch has waited in the API server's queue (up to
	// 15 s by default).
	headerTimeout = 30 * time.Second

	// bufferSize is large enough for a Lease, and small enough for an idle watch.
	bufferSize = 4 << 10
)

// curves are the cheapest key exchanges that every API server supports. Go's default, a
// post-quantum exchange, costs a kilobyte in each direction and lasting memory. That exchange would
// protect a recorded connection from quantum computers of the future. By then the agent's token in
// that connection has expired.
var curves = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384}

// newTransport returns a transport that speaks only HTTP/1.1, so that no two requests share a
// connection at the same time. A request that times out closes only its own connection, not
// that of a watch. A hanging HTTP/2 connection would block all requests for long. The
// transport ignores the environment variables of HTTP proxies, because these variables are meant
// for the application.
func newTransport(ca *authority, host string) *http.Transport {
	dialer := &net.Dialer{
		Timeout: dialTimeout,
		KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: probeIdle, Interval: probeInterval, Count: probeCount,
		},
		Control: setUserTimeout,
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		Protocols: protocols,
		// With a TLSClientConfig the CA could not change. With this function, each new connection
		// trusts the present content of the CA file.
		DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, dialTimeout)
			defer cancel()
			trust, err := ca.trust()
			if err != nil {
				return nil, err
			}
			raw, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			conn := tls.Client(linux.Quiet(raw), &tls.Config{
				RootCAs: trust.roots, ServerName: host, MinVersion: tls.VersionTLS12,
				CurvePreferences: curves, ClientSessionCache: trust.sessions,
			})
			if err := conn.HandshakeContext(ctx); err != nil {
				raw.Close()
				return nil, err
			}
			return conn, nil
		},
		// A renewal may overlap with a status patch, so two connections stay
		// open. The number of connections in use is unlimited, so no request
		// waits for one.
		MaxIdleConnsPerHost:   2,
		IdleConnTimeout:       idleTimeout,
		ResponseHeaderTimeout: headerTimeout,
		DisableCompression:    true,
		ReadBufferSize:        bufferSize,
		WriteBufferSize:       bufferSize,
	}
}

// tcpUserTimeout is TCP_USER_TIMEOUT, which package syscall lacks on some
// architectures.
const tcpUserTimeout = 0x12

// setUserTimeout makes the kernel close a connection whose data is not acknowledged
// within the time in the constant "silence". By default the kernel waits a quarter of an hour.
func setUserTimeout(_, _ string, raw syscall.RawConn) error {
	if runtime.GOOS != "linux" {
		return nil
	}
	var err error
	controlErr := raw.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(silence.Milliseconds()))
	})
	if controlErr != nil {
		return controlErr
	}
	return err
}
