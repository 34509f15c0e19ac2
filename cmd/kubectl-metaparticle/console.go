// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/metaparticle-io/metaparticle/console/view"
)

const consoleUsage = `Shows all slots in the browser, live: holders, standbys and why they wait,
handovers and their causes. The page comes through a port-forward to a pod of the
console. You need these rights in the namespace metaparticle-system: get, list and
watch pods; get and create pods/portforward. Ctrl-C ends the command.

Until then, every process that can connect to this computer's loopback sees the page.

  kubectl metaparticle console [--port PORT]
`

const (
	// consoleNamespace is the namespace of every installation of Metaparticle.
	consoleNamespace = "metaparticle-system"
	// consoleName is the name of the console's Deployment.
	consoleName = "metaparticle-console"
)

var consoleLabels = client.MatchingLabels{"app.kubernetes.io/name": consoleName}

// noConsole tells how to install the console.
const noConsole = refusal("no console is installed: run helm upgrade with --reset-then-reuse-values --set console.enabled=true," +
	" or add the component console to the kustomization (docs/console.md)")

const (
	// consoleWait bounds the wait for a Ready pod. In this time a node pulls the image and starts
	// the pod.
	consoleWait = time.Minute
	// consoleRetry is the time between the end of a port-forward, or of a watch, and the next
	// attempt.
	consoleRetry = time.Second
)

func consoleCommand(ctx context.Context, args []string, std stdio) (int, error) {
	flags, connection := newFlags("console", consoleUsage, std)
	f := forwarding{std: std}
	numberFlag(flags, &f.port, "port", "local `PORT`; default: any free one", "write the number of a port, such as 8080")
	c, _, _, err := connection.begin(flags, args, func(rest []string) error {
		if len(rest) > 0 {
			return fmt.Errorf("console takes no argument: leave out %q", rest[0])
		}
		return nil
	})
	if err != nil {
		return exitError, err
	}
	config, err := connection.config()
	if err != nil {
		return exitError, err
	}
	f.forward = func(ctx context.Context, pod string, port localPort, ready func()) error {
		return forward(ctx, config, types.NamespacedName{Namespace: consoleNamespace, Name: pod}, port, ready)
	}
	return exitOK, f.run(ctx, c)
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
