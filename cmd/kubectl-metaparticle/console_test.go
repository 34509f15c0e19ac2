// SPDX-FileCopyrightText: The Metaparticle Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
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
	assert.Contains(t, errs.String(), "invalid value")
}
