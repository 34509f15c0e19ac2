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
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/api"
	"github.com/metaparticle-io/metaparticle/console/view"
)

const consoleLong = `Shows all slots in the browser, live: holders, standbys and why they wait,
handovers and their causes. The page comes through a port-forward to a pod of the
console. You need these rights in the namespace metaparticle-system: get, list and
watch pods; get and create pods/portforward. Ctrl-C ends the command.

Until then, every process that can connect to this computer's loopback sees the page.`

const (
	// consoleNamespace is the namespace of every installation of Metaparticle.
	consoleNamespace = "metaparticle-system"
	// consoleName is the name of the console's Deployment.
	consoleName = "metaparticle-console"
)

var consoleLabels = client.MatchingLabels{"app.kubernetes.io/name": consoleName}

// noConsole tells how to install the console.
const noConsole = refusal("no console is installed: run helm upgrade with --reset-then-reuse-values --set console.enabled=true," +
	" or add the component console to the kustomization (" + api.Repository + "docs/operate/console.md)")

const (
	// consoleWait bounds the wait for a Ready pod. In this time a node pulls the image and starts
	// the pod.
	consoleWait = time.Minute
	// consoleRetry is the time between the end of a port-forward, or of a watch, and the next
	// attempt.
	consoleRetry = time.Second
)

func (p *plugin) consoleCommand() *cobra.Command {
	f := forwarding{std: p.std}
	c := &cobra.Command{
		Use: "console", Short: "Show all slots in the browser", Long: consoleLong, Args: noArguments,
		Example: `  kubectl metaparticle console --port 8080`,
	}
	numberFlag(c.Flags(), &f.port, "port", "local `PORT`; default: any free one", "write the number of a port, such as 8080")
	c.RunE = p.runs(func(ctx context.Context, _ []string) (int, error) {
		opened, _, err := p.open()
		if err != nil {
			return exitError, err
		}
		config, err := p.config()
		if err != nil {
			return exitError, err
		}
		f.forward = func(ctx context.Context, pod string, port localPort, ready func()) error {
			return forward(ctx, config, types.NamespacedName{Namespace: consoleNamespace, Name: pod}, port, ready)
		}
		return exitOK, f.run(ctx, opened)
	})
	return c
}

// forwarding keeps a local port connected to the console.
type forwarding struct {
	std stdio
	// port is the number of the local port. Zero selects a free one.
	port int
	// forward connects the local port to a pod until ctx ends, or until the connection is lost. The
	// function calls "ready" once the pod can answer.
	forward func(ctx context.Context, pod string, port localPort, ready func()) error
}

// run forwards to a pod of the console until ctx ends. If the pod stops answering, run looks for
// another pod. The local port stays open meanwhile.
func (f *forwarding) run(ctx context.Context, c cluster) error {
	port, err := openPort(ctx, f.port)
	if err != nil {
		return err
	}
	defer port.Close()
	for {
		err := f.once(ctx, c, port)
		select {
		case <-ctx.Done():
			return nil // the person ended the command
		default:
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(consoleRetry):
		}
	}
}

// once makes one attempt: the method finds a Ready pod, and forwards the port to that pod until the
// pod stops answering.
func (f *forwarding) once(ctx context.Context, c cluster, port localPort) error {
	pod, err := awaitConsole(ctx, c)
	if err != nil {
		return err
	}
	if err := f.connect(ctx, c, pod, port); err != nil || ctx.Err() != nil {
		return err
	}
	say(f.std.err, "the connection to %s is lost; looking for another pod of the console", pod.Name)
	return nil
}

// connect forwards to one pod until the pod stops answering. The result is an error only if no
// connection to the pod came about.
func (f *forwarding) connect(ctx context.Context, c cluster, pod *corev1.Pod, port localPort) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer cancel()
		awaitEnd(ctx, c, pod)
	}()
	connected := false
	err := f.forward(ctx, pod.Name, port, func() {
		connected = true
		say(f.std.out, "http://%s/", port.Addr())
	})
	if connected || ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("forward a port to %s: %w", pod.Name, err)
}

// awaitConsole waits until a pod of the console is Ready, and returns that pod. The result is an
// error if the console has no pod, or if no pod is Ready within [consoleWait].
func awaitConsole(ctx context.Context, c cluster) (*corev1.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, consoleWait)
	defer cancel()
	watching, err := c.Watch(ctx, new(corev1.PodList), client.InNamespace(consoleNamespace), consoleLabels)
	if err != nil {
		return nil, fmt.Errorf("watch the pods of the console: %w", err)
	}
	defer watching.Stop()
	var pods corev1.PodList
	if err := c.List(ctx, &pods, client.InNamespace(consoleNamespace), consoleLabels); err != nil {
		return nil, fmt.Errorf("read the pods of the console: %w", err)
	}
	if i := slices.IndexFunc(pods.Items, answers); i >= 0 {
		return &pods.Items[i], nil
	}
	if len(pods.Items) == 0 {
		return nil, noConsole
	}
	for {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("no pod of the console is Ready within %s: kubectl -n %s describe deployment %s", consoleWait, consoleNamespace, consoleName)
		case e, open := <-watching.ResultChan():
			if !open {
				return nil, errors.New("watch the pods of the console: the watch ended")
			}
			if pod, ok := e.Object.(*corev1.Pod); ok && e.Type != watch.Deleted && answers(*pod) {
				return pod, nil
			}
		}
	}
}

// answers reports whether a pod of the console can answer the browser: the pod is Ready, and not
// being deleted.
func answers(pod corev1.Pod) bool { return view.Ready(pod) && pod.DeletionTimestamp == nil }

// awaitEnd returns when the pod stops answering, or when ctx ends. A port-forward itself does not
// notice the end of a process in the pod.
func awaitEnd(ctx context.Context, c cluster, pod *corev1.Pod) {
	for ctx.Err() == nil {
		watching, err := c.Watch(ctx, new(corev1.PodList), client.InNamespace(consoleNamespace), client.MatchingFields{"metadata.name": pod.Name})
		if err == nil {
			ended := ends(ctx, c, pod, watching)
			watching.Stop()
			if ended {
				return
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(consoleRetry):
		}
	}
}

// ends returns true once the pod stops answering, or once ctx ends. If the watch ends first, the
// result is false.
func ends(ctx context.Context, c cluster, pod *corev1.Pod, watching watch.Interface) bool {
	var now corev1.Pod
	err := c.Get(ctx, types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}, &now)
	if apierrors.IsNotFound(err) || err == nil && (now.UID != pod.UID || !answers(now)) {
		return true
	}
	for {
		select {
		case <-ctx.Done():
			return true
		case e, open := <-watching.ResultChan():
			if !open {
				return false
			}
			if now, ok := e.Object.(*corev1.Pod); ok && (e.Type == watch.Deleted || now.UID != pod.UID || !answers(*now)) {
				return true
			}
		}
	}
}

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
