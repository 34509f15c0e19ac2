// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
)

// consolePod returns a pod of the console.
func consolePod(name string, ready corev1.ConditionStatus) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: consoleNamespace, Name: name, UID: types.UID(name), Labels: consoleLabels}}
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}
	return p
}

// opened is a port-forward of a test. The test ends the port-forward by an error in the channel
// "end".
type opened struct {
	pod   string
	port  string
	ready func()
	end   chan error
}

// forwards runs the command "console". The first channel gets each port-forward that the command
// opens. The second channel gets the result of the command.
func forwards(t *testing.T, ctx context.Context, b *byHand, port int) (chan opened, chan error) {
	t.Helper()
	all, ended := make(chan opened), make(chan error, 1)
	f := forwarding{std: stdio{out: &b.out, err: &b.err}, port: port, forward: func(ctx context.Context, pod string, port localPort, ready func()) error {
		one := opened{pod, port.Addr().String(), ready, make(chan error)}
		all <- one
		select {
		case err := <-one.end:
			return err
		case <-ctx.Done():
			return nil
		}
	}}
	go func() { ended <- f.run(ctx, cluster{WithWatch: b}) }()
	return all, ended
}

func TestConsoleCommandReconnectsToAnotherReadyPod(t *testing.T) {
	b := newByHand(consolePod("one", corev1.ConditionTrue), consolePod("starting", corev1.ConditionFalse))
	ctx, cancel := context.WithCancel(t.Context())
	all, ended := forwards(t, ctx, b, 0)
	first := <-all
	assert.Equal(t, "one", first.pod)
	first.ready()
	require.NoError(t, b.Create(ctx, consolePod("two", corev1.ConditionTrue)))
	require.NoError(t, b.Delete(ctx, consolePod("one", corev1.ConditionTrue)))
	second := <-all
	assert.Equal(t, "two", second.pod)
	second.ready()
	second.end <- errors.New("lost connection to pod")
	_, err := net.Listen("tcp", first.port)
	require.ErrorIs(t, err, syscall.EADDRINUSE, "no other user gets the port between two connections")
	third := <-all
	third.ready()
	cancel()
	require.NoError(t, <-ended, "Ctrl-C ends the command without an error")
	assert.Equal(t, strings.Repeat("http://"+first.port+"/\n", 3), b.out.String(), "the port stays")
	assert.Contains(t, b.err.String(), "the connection to one is lost; looking for another pod of the console")
}

func TestConsoleCommandWaitsForAReadyPod(t *testing.T) {
	b := newByHand(consolePod("starting", corev1.ConditionFalse))
	ctx, cancel := context.WithCancel(t.Context())
	started := make(chan struct{})
	b.WithWatch = listed{b.WithWatch, started}
	all, ended := forwards(t, ctx, b, 0)
	<-started
	require.NoError(t, b.Status().Update(ctx, consolePod("starting", corev1.ConditionTrue)))
	assert.Equal(t, "starting", (<-all).pod)
	cancel()
	require.NoError(t, <-ended)
}

// listed is a client that closes the channel "done" when the pods have been listed.
type listed struct {
	client.WithWatch

	done chan struct{}
}

func (l listed) List(ctx context.Context, list client.ObjectList, options ...client.ListOption) error {
	err := l.WithWatch.List(ctx, list, options...)
	close(l.done)
	return err
}

func TestConsoleCommandSaysHowToInstallTheConsole(t *testing.T) {
	b := newByHand()
	_, ended := forwards(t, t.Context(), b, 0)
	err := <-ended
	assert.Equal(t, exitRefused, exitCode(exitOK, err, &b.err))
	assert.Contains(t, b.err.String(), "refused: no console is installed: run helm upgrade with --reset-then-reuse-values --set console.enabled=true, or add the component console")
}

func TestConsoleCommandReportsARefusedPortForward(t *testing.T) {
	b := newByHand(consolePod("one", corev1.ConditionTrue))
	all, ended := forwards(t, t.Context(), b, 0)
	(<-all).end <- errors.New(`pods "one" is forbidden`)
	assert.EqualError(t, <-ended, `forward a port to one: pods "one" is forbidden`)
}

func TestConsoleCommandRefusesArguments(t *testing.T) {
	var out, errs bytes.Buffer
	assert.Equal(t, exitError, run(t.Context(), []string{"console", "--port", "many"}, stdio{nil, &out, &errs}))
	assert.Contains(t, errs.String(), "invalid argument")
}

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
