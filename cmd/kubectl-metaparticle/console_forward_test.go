// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"github.com/metaparticle-io/metaparticle/api"
)

// kubelet acts as an API server that forwards by SPDY only, and as the pod behind the API server.
// The pod answers the line "a" with "pod: a", and ends the connection.
type kubelet struct {
	*httptest.Server

	// connected receives each port-forward that the command opens.
	connected chan httpstream.Connection
	// asked receives the verb and path of each request, and the port of each data stream.
	asked chan string
	// problem, if not empty, is the text that the kubelet reports on each connection.
	problem string
}

func newKubelet(t *testing.T) *kubelet {
	k := &kubelet{connected: make(chan httpstream.Connection, 8), asked: make(chan string, 32)}
	k.Server = httptest.NewServer(k)
	t.Cleanup(k.Close)
	return k
}

// ServeHTTP implements [http.Handler].
func (k *kubelet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.asked <- r.Method + " " + r.URL.Path
	if r.Method != http.MethodPost {
		http.Error(w, "no WebSocket", http.StatusBadRequest)
		return
	}
	if _, err := httpstream.Handshake(r, w, []string{portforward.PortForwardProtocolV1Name}); err != nil {
		return
	}
	problems := map[string]httpstream.Stream{}
	connection := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, _ <-chan struct{}) error {
		id := s.Headers().Get(corev1.PortForwardRequestIDHeader)
		if s.Headers().Get(corev1.StreamType) == corev1.StreamTypeError {
			problems[id] = s
			return nil
		}
		k.asked <- s.Headers().Get(corev1.PortHeader)
		go func(problems httpstream.Stream) {
			line, _ := bufio.NewReader(s).ReadString('\n')
			_, _ = io.WriteString(s, "pod: "+line)
			_, _ = io.WriteString(problems, k.problem)
			problems.Close()
			s.Close()
		}(problems[id])
		return nil
	})
	if connection != nil {
		k.connected <- connection
		<-connection.CloseChan()
	}
}

// answerOf sends a line, as a browser would, and returns the whole answer.
func answerOf(t *testing.T, address string) (string, error) {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(30*time.Second)))
	_, err = io.WriteString(c, "a\n")
	require.NoError(t, err)
	answer, err := io.ReadAll(c)
	return string(answer), err
}

// TestPortForwardCarriesConnectionsToThePod also checks that a connection waits while no pod is
// connected.
func TestPortForwardCarriesConnectionsToThePod(t *testing.T) {
	k := newKubelet(t)
	port, err := openPort(t.Context(), 0)
	require.NoError(t, err)
	defer port.Close()
	begin := func() (ended chan error, cancel func()) {
		ctx, cancel := context.WithCancel(t.Context())
		ready, ended := make(chan struct{}), make(chan error, 1)
		go func() {
			ended <- forward(ctx, &rest.Config{Host: k.URL}, types.NamespacedName{Namespace: consoleNamespace, Name: "one"}, port, func() { close(ready) })
		}()
		select {
		case <-ready:
		case err := <-ended:
			require.NoError(t, err, "not connected")
		}
		return ended, cancel
	}
	ended, cancel := begin()
	defer cancel()
	for range 2 {
		answer, err := answerOf(t, port.Addr().String())
		require.NoError(t, err)
		assert.Equal(t, "pod: a\n", answer)
	}
	const path = "/api/v1/namespaces/metaparticle-system/pods/one/portforward"
	for _, want := range []string{"GET " + path, "POST " + path, fmt.Sprint(api.ConsolePort), fmt.Sprint(api.ConsolePort)} {
		assert.Equal(t, want, <-k.asked)
	}
	(<-k.connected).Close() // the API server ends the port-forward
	assert.NoError(t, <-ended)

	early := make(chan string, 1)
	go func() {
		answer, _ := answerOf(t, port.Addr().String())
		early <- answer
	}()
	ended, cancel = begin()
	assert.Equal(t, "pod: a\n", <-early, "the connection waited for the next pod")
	cancel()
	assert.NoError(t, <-ended)
}

func TestPortForwardEndsWhenPodRefusesConnection(t *testing.T) {
	k := newKubelet(t)
	k.problem = "connection refused"
	port, err := openPort(t.Context(), 0)
	require.NoError(t, err)
	defer port.Close()
	ended := make(chan error, 1)
	go func() {
		ended <- forward(t.Context(), &rest.Config{Host: k.URL}, types.NamespacedName{Namespace: consoleNamespace, Name: "one"}, port, func() {})
	}()
	_, _ = answerOf(t, port.Addr().String())
	assert.NoError(t, <-ended)
}

func TestConsoleCommandRefusesATakenPort(t *testing.T) {
	port, err := openPort(t.Context(), 0)
	require.NoError(t, err)
	defer port.Close()
	assert.True(t, port.Addr().(*net.TCPAddr).IP.IsLoopback())
	_, err = openPort(t.Context(), port.Addr().(*net.TCPAddr).Port)
	assert.ErrorContains(t, err, "listen for the browser")
}
