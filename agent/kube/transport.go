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
)

const (
	// A path that was cut is noticed within silence, whether data is on its
	// way (TCP_USER_TIMEOUT) or not (5 s idle, then three probes a second
	// apart): inside of the shortest lease, 10 s, with the time of one new
	// connection to spare.
	silence       = 8 * time.Second
	probeIdle     = 5 * time.Second
	probeInterval = time.Second
	probeCount    = 3

	// dialTimeout bounds connection and handshake together. A lost SYN is sent
	// again after 1 and 3 s; who needs more than both is not reachable. A
	// request gives up sooner by its own context.
	dialTimeout = 5 * time.Second

	// idleTimeout is less than the 90 s after which the API server closes an
	// idle connection, so that no request is sent into a closing one.
	idleTimeout = 80 * time.Second

	// headerTimeout matters to watches, which have no deadline of their own:
	// the API server answers them at once, or after its queue's wait (up to
	// 15 s with its stock settings).
	headerTimeout = 30 * time.Second

	// bufferSize is enough for a Lease and keeps an idle watch small.
	bufferSize = 4 << 10
)

// curves are the cheapest that every API server knows. The post-quantum
// exchange, Go's default, costs each handshake a kilobyte each way and memory
// that stays: what goes over this connection is secret for minutes.
var curves = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384}

// newTransport speaks HTTP/1.1 only. Each request then has a connection to
// itself: one that times out closes its own and never sits behind another (an
// HTTP/2 connection that hangs takes every request with it, and for long), and
// a watch shares nothing with a renewal. HTTP proxies of the environment are
// ignored: the environment is the pod's, the API server the cluster's.
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
		// Dialling here, rather than setting TLSClientConfig, lets each new
		// connection trust the CA file of that moment.
		DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, dialTimeout)
			defer cancel()
			roots, err := ca.pool()
			if err != nil {
				return nil, err
			}
			raw, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			conn := tls.Client(raw, &tls.Config{
				RootCAs: roots, ServerName: host, MinVersion: tls.VersionTLS12,
				CurvePreferences: curves,
			})
			if err := conn.HandshakeContext(ctx); err != nil {
				raw.Close()
				return nil, err
			}
			return conn, nil
		},
		// Two: a renewal may overlap with a status patch. There is no limit of
		// connections that are in use, so nothing ever queues for one.
		MaxIdleConnsPerHost:   2,
		IdleConnTimeout:       idleTimeout,
		ResponseHeaderTimeout: headerTimeout,
		DisableCompression:    true,
		ReadBufferSize:        bufferSize,
		WriteBufferSize:       bufferSize,
	}
}

// tcpUserTimeout is TCP_USER_TIMEOUT, which package syscall does not name on
// every architecture.
const tcpUserTimeout = 0x12

// setUserTimeout makes the kernel give up on a connection whose data was not
// acknowledged for so long, instead of after a quarter of an hour.
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
