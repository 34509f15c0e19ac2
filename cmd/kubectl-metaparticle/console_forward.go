// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/metaparticle-io/metaparticle/api"
)

// localPort is the console's port on this computer. The command listens once, and keeps the port
// while it connects to another pod of the console. So no other user of the computer gets the port
// meanwhile. [portforward.PortForwarder] would close the port at each end of the connection to a
// pod.
type localPort struct{ *net.TCPListener }

// openPort listens on the loopback. Zero selects any free port.
func openPort(ctx context.Context, port int) (localPort, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(net.IPv4(127, 0, 0, 1).String(), strconv.Itoa(port)))
	if err != nil {
		return localPort{}, fmt.Errorf("listen for the browser: %w; choose another port by --port", err)
	}
	return localPort{listener.(*net.TCPListener)}, nil
}

// serve passes each connection of the port to the function "relay", until ctx ends. The port itself
// stays open, so later connections wait until serve is called again.
func (l localPort) serve(ctx context.Context, relay func(net.Conn)) error {
	if err := l.SetDeadline(time.Time{}); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = l.SetDeadline(time.Now()) })() // this deadline ends Accept
	var carried sync.WaitGroup
	defer carried.Wait()
	for {
		connection, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				connection.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept a connection of the browser: %w", err)
		}
		carried.Go(func() {
			defer connection.Close()
			defer context.AfterFunc(ctx, func() { connection.Close() })()
			relay(connection)
		})
	}
}

// forward connects the port to the pod by WebSocket. After a failure of the WebSocket, forward uses
// SPDY.
func forward(ctx context.Context, config *rest.Config, pod types.NamespacedName, port localPort, ready func()) error {
	dialer, err := dialerOf(config, pod)
	if err != nil {
		return err
	}
	streams, protocol, err := dialer.Dial(portforward.PortForwardProtocolV1Name)
	if err != nil {
		return err
	}
	defer streams.Close()
	if protocol != portforward.PortForwardProtocolV1Name {
		return fmt.Errorf("the API server offers the protocol %q", protocol)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer cancel()
		select {
		case <-ctx.Done():
			streams.Close() // ends the copying for all connections
		case <-streams.CloseChan():
		}
	}()
	ready()
	var calls numbers
	return port.serve(ctx, func(connection net.Conn) {
		if err := relay(streams, calls.next(), connection); err != nil {
			cancel() // the pod does not answer
		}
	})
}

// dialerOf returns the dialer of a port-forward. The dialer first tries a WebSocket, by a GET
// request, and then SPDY, by a POST request.
func dialerOf(config *rest.Config, pod types.NamespacedName) (httpstream.Dialer, error) {
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	address := clients.CoreV1().RESTClient().Post().Resource("pods").Namespace(pod.Namespace).Name(pod.Name).SubResource("portforward").URL()
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return nil, err
	}
	older := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, address)
	newer, err := portforward.NewSPDYOverWebsocketDialerForStreaming(address, config)
	if err != nil {
		return nil, err
	}
	// After any failure of the WebSocket, the dialer tries SPDY. The person gets the error of SPDY.
	return portforward.NewFallbackDialerForStreaming(newer, older, func(error) bool { return true }), nil
}

// numbers counts the connections of a port-forward.
type numbers struct {
	mu   sync.Mutex
	last int
}

func (n *numbers) next() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.last++
	return strconv.Itoa(n.last)
}

// relay copies between a connection of the browser and the pod. If the kubelet reports a problem
// with the pod, the result is an error with the kubelet's text.
func relay(streams httpstream.Connection, number string, connection net.Conn) error {
	headers := http.Header{}
	headers.Set(corev1.PortHeader, strconv.Itoa(api.ConsolePort))
	headers.Set(corev1.PortForwardRequestIDHeader, number)
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	problems, err := streams.CreateStream(headers)
	if err != nil {
		return err
	}
	defer streams.RemoveStreams(problems)
	problems.Close() // the command sends nothing on the stream for problems
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := streams.CreateStream(headers)
	if err != nil {
		return err
	}
	defer streams.RemoveStreams(data)
	said := make(chan error, 1)
	go func() {
		text, err := io.ReadAll(problems)
		if err == nil && len(text) > 0 {
			err = errors.New(string(text))
		}
		said <- err
	}()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		defer data.Close() // tells the pod that the browser sends no more
		_, _ = io.Copy(data, connection)
	}()
	_, _ = io.Copy(connection, data)
	connection.Close()
	<-sent
	_ = data.Reset() // tells the pod that the browser reads no more
	return <-said
}
